#include "checkpoint/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <system_error>
#include <type_traits>
#include <utility>

#include "base/error.h"
#include "checkpoint/weight_files.h"

namespace sluice::safetensors {
namespace {

namespace fs = std::filesystem;

bool present(const fs::path& path) {
  // A link that leads nowhere is weights that cannot be read, not a model without any.
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() != fs::file_type::not_found;
}

// IEEE half precision, exactly.
float from_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t exponent = bits >> 10 & 0x1fU, fraction = bits & 0x3ffU;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  const uint32_t widened = exponent == 0x1f ? 0xffU : exponent + 112;
  return std::bit_cast<float>(sign | widened << 23 | fraction << 13);
}

template <size_t size>
using size_constant = std::integral_constant<size_t, size>;

template <class Stored>
Stored load(const std::byte* at) {
  Stored value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// Calls f(bytes -> double or float, size) with how an element is read; the size is a constant.
template <class F>
void with_loader(const TensorSpec& spec, F&& f) {
  switch (spec.type) {
    case Type::f64:
      return f([](const std::byte* at) { return load<double>(at); }, size_constant<sizeof(double)>());
    case Type::f32:
      return f([](const std::byte* at) { return load<float>(at); }, size_constant<sizeof(float)>());
    case Type::f16:
      return f([](const std::byte* at) { return from_f16(load<uint16_t>(at)); }, size_constant<sizeof(uint16_t)>());
    case Type::bf16:
      return f([](const std::byte* at) { return static_cast<float>(load<bf16>(at)); }, size_constant<sizeof(bf16)>());
    default:
      break;
  }
  throw user_error("tensor {} is of {}; weights are read from F64, F32, F16 and BF16", in_quotes(spec.name),
                   name_of(spec.type));
}

}  // namespace

Model::Model(const fs::path& path) : path_(path) {
  std::error_code ignored;
  const bool directory = fs::is_directory(path, ignored);
  if (directory && present(path / kSingleFile)) {
    add_file(path / kSingleFile);
  } else if (directory && present(path / kIndexFile)) {
    add_shards(path / kIndexFile);
  } else if (directory) {
    throw no_readable_weights(path, find_weight_files(path));
  } else if (path.extension() == ".json") {
    add_shards(path);
  } else {
    add_file(path);
  }
}

void Model::add_file(const fs::path& path) {
  files_.emplace_back(path);
  const std::span<const std::byte> bytes = files_.back().bytes();
  Header header = parse_header(bytes, path.string());
  const auto file = std::make_shared<const std::string>(path.string());
  metadata_.merge(header.metadata);
  for (Entry& entry : header.entries) {
    std::string name = entry.spec.name;
    const auto added = tensors_.emplace(
        std::move(name), StoredTensor{std::move(entry.spec), bytes.subspan(entry.begin, entry.bytes), file});
    if (!added.second) {
      throw user_error("{}: tensor {} is in another file of this model too", path.string(),
                       in_quotes(added.first->first));
    }
  }
}

void Model::add_shards(const fs::path& index_path) {
  const Index index = parse_index(read_file(index_path, kMaxHeaderBytes), index_path.string());
  std::map<std::string, std::vector<std::string_view>> by_file;
  for (const auto& [tensor, file] : index.files) by_file[file].push_back(tensor);
  for (const auto& [file, names] : by_file) {
    const fs::path path = index_path.parent_path() / file;
    const size_t before = tensors_.size();
    add_file(path);
    size_t listed = 0;
    for (const std::string_view name : names) {
      const auto found = tensors_.find(name);
      // One that another file has is met there as one too many.
      if (found == tensors_.end() || *found->second.file != path.string()) {
        absent_.emplace(name, path.string());
      } else {
        ++listed;
      }
    }
    if (tensors_.size() - before == listed) continue;
    for (const auto& [name, stored] : tensors_) {
      if (!index.files.contains(name))
        throw user_error("{} has a tensor {}, which the index lacks", path.string(), in_quotes(name));
    }
    throw user_error("{} and {} put tensors into different files", path.string(), index_path.string());
  }
}

const StoredTensor& Model::at(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw user_error("{} has no tensor {}", path_.string(), in_quotes(name));
  return found->second;
}

uint64_t Model::bytes() const {
  uint64_t sum = 0;
  for (const auto& [name, stored] : tensors_) sum += stored.bytes.size();
  return sum;
}

void read_elements(const StoredTensor& from, int64_t first, const Tensor& to, int64_t stride) {
  const size_t size = size_of(from.spec.type);
  const auto stored = static_cast<int64_t>(from.bytes.size() / size);
  const int64_t count = to.numel();
  if (count == 0) return;
  require(first >= 0 && stride > 0 && first < stored && count - 1 <= (stored - 1 - first) / stride && to.dense(),
          "{} elements from {} in steps of {} of {} for {}", count, first, stride, stored, to.str());
  const std::byte* const begin = from.bytes.data() + static_cast<size_t>(first) * size;
  if (stride == 1 && from.spec.type == type_of(to.dtype()) && is_float(to.dtype())) {
    std::memcpy(to.raw(), begin, to.bytes());
    return;
  }
  const size_t step = static_cast<size_t>(stride) * size;
  with_loader(from.spec, [&](auto&& element, auto constant_size) {
    dispatch_float(to.dtype(), [&](auto type) {
      using T = decltype(type);
      T* const out = to.data<T>();
      // A loop of its own: a constant step is vector code.
      if (stride == 1) {
        for (int64_t i = 0; i < count; ++i)
          out[i] = static_cast<T>(element(begin + static_cast<size_t>(i) * constant_size));
      } else {
        for (int64_t i = 0; i < count; ++i) out[i] = static_cast<T>(element(begin + static_cast<size_t>(i) * step));
      }
    });
  });
}

Writer::Writer(const fs::path& path, std::vector<TensorSpec> tensors, Metadata metadata)
    : header_(lay_out(std::move(tensors), std::move(metadata))), file_(path) {
  file_.append(header_text(header_));
  skip_complete();
}

// Empty tensors need no call.
void Writer::skip_complete() {
  while (at_ < header_.entries.size() && written_ == header_.entries[at_].bytes) {
    ++at_;
    written_ = 0;
  }
}

void Writer::write(std::string_view tensor, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  require(at_ < header_.entries.size(), "{} is written after the last tensor", tensor);
  const Entry& entry = header_.entries[at_];
  require(entry.spec.name == tensor, "{} is written where {} is next", tensor, entry.spec.name);
  require(bytes.size() <= entry.bytes - written_, "{} bytes of {} after {} of {}", bytes.size(), tensor, written_,
          entry.bytes);
  file_.append(bytes);
  written_ += bytes.size();
  skip_complete();
}

void Writer::finish() {
  require(at_ == header_.entries.size(), "a file of {} tensors ends in tensor {}", header_.entries.size(), at_);
  file_.commit();
}

ModelWriter::ModelWriter(fs::path directory, std::vector<TensorSpec> tensors, uint64_t max_file_bytes,
                         Metadata metadata)
    : directory_(std::move(directory)), metadata_(std::move(metadata)) {
  uint64_t in_file = 0;
  for (TensorSpec& spec : tensors) {
    const uint64_t bytes = bytes_of(spec);
    if (shards_.empty() ||
        (!shards_.back().tensors.empty() && (bytes > max_file_bytes || in_file > max_file_bytes - bytes))) {
      shards_.emplace_back();
      in_file = 0;
    }
    in_file += bytes;
    index_.total_bytes += bytes;
    shards_.back().tensors.push_back(std::move(spec));
  }
  if (shards_.empty()) shards_.emplace_back();
  for (size_t i = 0; i < shards_.size(); ++i) {
    Shard& shard = shards_[i];
    shard.file = shards_.size() == 1 ? std::string(kSingleFile)
                                     : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards_.size());
    std::vector<TensorSpec> in_order;
    for (Entry& entry : lay_out(std::move(shard.tensors), {}).entries) {
      if (!index_.files.emplace(entry.spec.name, shard.file).second) {
        throw user_error("a second tensor {}", in_quotes(entry.spec.name));
      }
      in_order.push_back(entry.spec);
      order_.push_back(std::move(entry.spec));
    }
    shard.tensors = std::move(in_order);
  }
}

void ModelWriter::next_shard() {
  if (writer_) writer_->finish();
  Shard& shard = shards_[begun_++];
  writer_ = std::make_unique<Writer>(directory_ / shard.file, std::move(shard.tensors), metadata_);
}

void ModelWriter::write(std::string_view tensor, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const auto file = index_.files.find(std::string(tensor));
  require(file != index_.files.end(), "{} is not a tensor of this model", tensor);
  while (begun_ == 0 || file->second != shards_[begun_ - 1].file) {
    require(begun_ < shards_.size(), "{} is written after its file", tensor);
    next_shard();
  }
  writer_->write(tensor, bytes);
}

void ModelWriter::finish() {
  while (begun_ < shards_.size()) next_shard();
  writer_->finish();
  if (shards_.size() > 1) write_file_atomic(directory_ / kIndexFile, index_text(index_));
}

}  // namespace sluice::safetensors
