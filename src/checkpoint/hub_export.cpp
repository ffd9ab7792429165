#include "checkpoint/hub_export.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/checkpoint_model.h"
#include "checkpoint/hub_layout.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using safetensors::Type;

// Elements a worker converts at a time.
constexpr int64_t kPieceElements = 1 << 18;
// Written before memory that holds what was read is given back.
constexpr uint64_t kHeldBytes = uint64_t{1} << 26;

// f(begin, end) over [0, n) in pieces.
template <class F>
void in_pieces(Pool* pool, int64_t n, F&& f) {
  const auto piece = [&](int64_t begin, int64_t end, int) { f(begin, end); };
  if (pool != nullptr) return pool->run_ranges(n, kPieceElements, piece);
  for (int64_t at = 0; at < n; at += kPieceElements) piece(at, std::min(at + kPieceElements, n), 0);
}

DType dtype_of(Type type) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    if (safetensors::type_of(dtype) == type) return dtype;
  }
  throw user_error("weights are written as F64, F32 or BF16, not {}", safetensors::name_of(type));
}

safetensors::Extents extents_of(const Shape& shape) {
  safetensors::Extents extents;
  for (int i = 0; i < shape.rank(); ++i) extents.push_back(shape[i]);
  return extents;
}

// Counts what has been written.
class Progress {
 public:
  Progress(const ExportOptions& options, uint64_t all) : options_(options), all_(all) {}
  void add(uint64_t bytes) {
    done_ += bytes;
    if (options_.progress) options_.progress(done_, all_);
  }

 private:
  const ExportOptions& options_;
  uint64_t all_;
  uint64_t done_ = 0;
};

// Elements of a tensor that are made at once: where the hub has them in another order, those of whole matrices, which
// keep theirs.
int64_t elements_at_once(const HubTensor& tensor, int64_t most) {
  using Order = HubTensor::Order;
  if (tensor.order == Order::same) return most;
  const int last = tensor.hub_shape.rank() - 1;
  const int64_t matrix = tensor.hub_shape[last] * (tensor.order == Order::interleaved ? 1 : tensor.hub_shape[last - 1]);
  return std::max<int64_t>(1, most / matrix) * matrix;
}

// hub[line of i] = part[i], where both are whole matrices of a tensor.
void put_in_order(const HubTensor& tensor, const Tensor& part, const Tensor& hub, Pool* pool) {
  dispatch_float(part.dtype(), [&]<class T>(T) {
    const T* const in = part.data<T>();
    T* const out = hub.data<T>();
    in_pieces(pool, part.numel(), [&](int64_t begin, int64_t end) {
      for_each_line(tensor, begin, end, [&](int64_t at, const HubLine& line) {
        for (int64_t j = 0; j < line.count; ++j) out[line.first + j * line.stride] = in[at + j];
      });
    });
  });
}

int64_t count_non_finite(const Tensor& values, Pool* pool) {
  std::atomic<int64_t> count = 0;
  dispatch_float(values.dtype(), [&]<class T>(T) {
    in_pieces(pool, values.numel(), [&](int64_t begin, int64_t end) {
      count += std::count_if(values.data<T>() + begin, values.data<T>() + end, [](T value) {
        return !std::isfinite(static_cast<double>(static_cast<accumulator_t<T>>(value)));
      });
    });
  });
  return count;
}

}  // namespace

Type export_type(std::string_view hub_name, Type dtype) {
  return hub_name.ends_with("e_score_correction_bias") && safetensors::size_of(dtype) < sizeof(float) ? Type::f32
                                                                                                      : dtype;
}

namespace {

std::vector<safetensors::TensorSpec> export_specs(std::span<const HubTensor> tensors, DType dtype) {
  std::vector<safetensors::TensorSpec> specs;
  for (const HubTensor& tensor : tensors) {
    if (!tensor.exported) continue;
    specs.push_back(
        {tensor.hub_name, export_type(tensor.hub_name, safetensors::type_of(dtype)), extents_of(tensor.hub_shape)});
  }
  return specs;
}

// What is written of a hub's weights, under which name.
struct Converted {
  safetensors::TensorSpec spec;
  const HubWeight* weight = nullptr;
};

std::vector<Converted> converted(const HubWeights& hub, const HubMatch& match, std::optional<DType> dtype) {
  std::vector<Converted> tensors;
  const auto add = [&](const std::string& name, const HubWeight& weight) {
    const Type stored = weight.values.spec.type;
    Type type = weight.coding == HubCoding::plain ? stored : Type::bf16;
    if (dtype) type = export_type(name, safetensors::type_of(*dtype));
    tensors.push_back({{name, type, weight.shape}, &weight});
  };
  for (const HubMatch::Item& item : match.items) add(item.tensor.hub_name, item.weight);
  for (const HubMatch::Item& item : match.repeats) add(item.tensor.hub_name, item.weight);
  for (const std::string& name : match.left_out) add(name, hub.weights().find(name)->second);
  return tensors;
}

}  // namespace

uint64_t export_bytes(const ModelConfig& model, DType dtype) {
  uint64_t sum = 0;
  for (const safetensors::TensorSpec& spec : export_specs(family_of(model).tensors(model), dtype))
    sum += bytes_of(spec);
  return sum;
}

uint64_t convert_bytes(const HubWeights& hub, const HubMatch& match, std::optional<DType> dtype) {
  uint64_t sum = 0;
  for (const Converted& tensor : converted(hub, match, dtype)) sum += bytes_of(tensor.spec);
  return sum;
}

ExportCount export_checkpoint(const Checkpoint& checkpoint, const ModelConfig& model, const fs::path& directory,
                              DType dtype, const ExportOptions& options) {
  match_parameters(checkpoint, model);
  const std::vector<HubTensor> tensors = family_of(model).tensors(model);
  std::map<std::string_view, const HubTensor*> by_name;
  for (const HubTensor& tensor : tensors) by_name[tensor.hub_name] = &tensor;
  safetensors::ModelWriter writer(directory, export_specs(tensors, dtype), options.max_file_bytes);
  Progress progress(options, writer.bytes());
  std::vector<std::byte> in_our_order, in_the_hubs;
  uint64_t held = 0;
  for (const safetensors::TensorSpec& spec : writer.tensors()) {
    const HubTensor& tensor = *by_name.at(spec.name);
    const int64_t all = tensor.hub_shape.numel(), most = elements_at_once(tensor, options.piece_elements);
    const DType type = dtype_of(spec.type);
    int64_t bad = 0;
    for (int64_t at = 0; at < all; at += most) {
      const int64_t count = std::min(most, all - at);
      const auto piece = [&](std::vector<std::byte>& buffer) {
        buffer.resize(static_cast<size_t>(count) * size_of(type));
        return Tensor(buffer.data(), {count}, type);
      };
      const Tensor hub = piece(in_the_hubs);
      const bool as_it_is = tensor.order == HubTensor::Order::same;
      const Tensor part = as_it_is ? hub : piece(in_our_order);
      checkpoint.read(std::array{Checkpoint::Wanted{StateKind::value, tensor.parameter, tensor.first() + at, part}},
                      options.pool);
      if (!as_it_is) put_in_order(tensor, part, hub, options.pool);
      // The last step of a run may leave what no later one would have noticed.
      bad += count_non_finite(hub, options.pool);
      writer.write(spec.name, in_the_hubs);
      progress.add(in_the_hubs.size());
      held += in_the_hubs.size();
      if (held < kHeldBytes) continue;
      checkpoint.forget();
      held = 0;
    }
    if (bad == 0) continue;
    throw runtime_failure("{} of {} values of {} are not finite", bad, all, spec.name)
        .advise("lower optimizer.lr, or set clip_grad_norm.max_norm");
  }
  writer.finish();
  return {writer.files(), writer.bytes()};
}

ExportCount convert_weights(const HubWeights& hub, const HubMatch& match, const fs::path& directory,
                            std::optional<DType> dtype, const ExportOptions& options) {
  const std::vector<Converted> tensors = converted(hub, match, dtype);
  std::map<std::string_view, const HubWeight*> weights;
  std::vector<safetensors::TensorSpec> specs;
  for (const Converted& tensor : tensors) {
    weights[tensor.spec.name] = tensor.weight;
    specs.push_back(tensor.spec);
  }
  safetensors::ModelWriter writer(directory, std::move(specs), options.max_file_bytes);
  Progress progress(options, writer.bytes());
  std::vector<std::byte> buffer;
  for (const safetensors::TensorSpec& spec : writer.tensors()) {
    const HubWeight& weight = *weights.at(spec.name);
    const auto element = static_cast<int64_t>(safetensors::size_of(spec.type));
    const bool as_it_is = weight.coding == HubCoding::plain && weight.values.spec.type == spec.type;
    for (int64_t at = 0; at < weight.numel(); at += options.piece_elements) {
      const int64_t count = std::min(options.piece_elements, weight.numel() - at);
      const auto bytes = static_cast<size_t>(count * element);
      buffer.resize(bytes);
      if (as_it_is) {
        // Through memory: where the source is cut short meanwhile, reading it fails here, by its name, and not the
        // write of the target.
        std::memcpy(buffer.data(), weight.values.bytes.data() + at * element, bytes);
        writer.write(spec.name, buffer);
      } else {
        const Tensor decoded(buffer.data(), {count}, dtype_of(spec.type));
        in_pieces(options.pool, count, [&](int64_t begin, int64_t end) {
          read_line(weight, at + begin, 1, decoded.rows(begin, end - begin));
        });
        writer.write(spec.name, buffer);
      }
      progress.add(bytes);
    }
  }
  writer.finish();
  return {writer.files(), writer.bytes()};
}

}  // namespace sluice
