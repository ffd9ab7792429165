#include "checkpoint/hub_export.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "checkpoint/hub_layout.h"

namespace sluice {
namespace {

using safetensors::Type;

// Elements a worker converts at a time, and in memory at once where a tensor is streamed.
constexpr int64_t kPieceElements = 1 << 18;
constexpr int64_t kStreamElements = 1 << 24;

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

// hub[line of i] = parameter[i], for elements [begin, end) of the part of the parameter that the tensor is.
void scatter(const Context& ctx, const HubTensor& tensor, const Tensor& part, int64_t begin, int64_t end,
             const Tensor& hub) {
  dispatch_float(part.dtype(), [&](auto from) {
    using From = decltype(from);
    const std::vector<From> values = ctx.read<From>(
        part.rows(begin, end - begin), [&] { return std::vector<From>(static_cast<size_t>(end - begin)); });
    dispatch_float(hub.dtype(), [&](auto to) {
      using To = decltype(to);
      To* const out = hub.data<To>();
      for_each_line(tensor, begin, end, [&](int64_t at, const HubLine& line) {
        const From* const in = values.data() + (at - begin);
        To* const first = out + line.first;
        for (int64_t j = 0; j < line.count; ++j) {
          if constexpr (std::is_same_v<From, To>) {
            first[j * line.stride] = in[j];
          } else {
            first[j * line.stride] = static_cast<To>(static_cast<accumulator_t<From>>(in[j]));
          }
        }
      });
    });
  });
}

// The last step of a run may leave what no later one would have noticed.
void require_finite(const Tensor& hub, const std::string& name) {
  dispatch_float(hub.dtype(), [&](auto type) {
    using T = decltype(type);
    const std::span<const T> values(hub.data<T>(), static_cast<size_t>(hub.numel()));
    const auto bad = std::ranges::count_if(
        values, [](T value) { return !std::isfinite(static_cast<double>(static_cast<accumulator_t<T>>(value))); });
    if (bad == 0) return;
    throw runtime_failure("{} of {} values of {} are not finite", bad, hub.numel(), name)
        .advise("lower optimizer.lr, or set clip_grad_norm.max_norm");
  });
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

ExportCount export_weights(const Context& ctx, const ModelConfig& model, std::span<FlatGroup* const> groups,
                           const std::filesystem::path& directory, DType dtype, const ExportOptions& options) {
  std::map<std::string_view, Tensor> parameters;
  for (const FlatGroup* group : groups) {
    for (const FlatGroup::Piece& piece : group->pieces()) {
      const ParamSpec& spec = piece.param->spec;
      require(piece.param->first == 0 && piece.value.numel() == spec.shape.numel(), "{} is not whole on this rank",
              spec.name);
      parameters[spec.name] = piece.value;
    }
  }
  const std::vector<HubTensor> tensors = family_of(model).tensors(model);
  std::map<std::string_view, const HubTensor*> by_name;
  for (const HubTensor& tensor : tensors) by_name[tensor.hub_name] = &tensor;
  safetensors::ModelWriter writer(directory, export_specs(tensors, dtype), options.max_file_bytes);
  Progress progress(options, writer.bytes());
  std::vector<std::byte> buffer;
  for (const safetensors::TensorSpec& spec : writer.tensors()) {
    const HubTensor& tensor = *by_name.at(spec.name);
    const auto parameter = parameters.find(tensor.parameter);
    require(parameter != parameters.end(), "no rank has {}", tensor.parameter);
    const int64_t count = tensor.hub_shape.numel();
    const Tensor part = parameter->second.rows(tensor.first(), count);
    buffer.resize(bytes_of(spec));
    const Tensor hub(buffer.data(), {count}, dtype_of(spec.type));
    in_pieces(options.pool, count, [&](int64_t begin, int64_t end) { scatter(ctx, tensor, part, begin, end, hub); });
    require_finite(hub, spec.name);
    writer.write(spec.name, buffer);
    progress.add(buffer.size());
  }
  writer.finish();
  return {writer.files(), writer.bytes()};
}

ExportCount convert_weights(const HubWeights& hub, const HubMatch& match, const std::filesystem::path& directory,
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
    for (int64_t at = 0; at < weight.numel(); at += kStreamElements) {
      const int64_t count = std::min(kStreamElements, weight.numel() - at);
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
