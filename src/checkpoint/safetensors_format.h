// The safetensors format as pure functions between bytes and structures. A file is
//   u64 N, little endian;  N bytes of JSON, padded with spaces;  the tensors' bytes, without gaps
//   {"__metadata__": {text: text}, NAME: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [begin, end]}, ...}
// with offsets counted from the end of the JSON. A sharded model has an index beside its files:
//   {"metadata": {...}, "weight_map": {NAME: FILE, ...}}
// What nobody uses may be anything, as for other readers: the rest of the index, further keys of a tensor; metadata may
// be null. A tensor that is described twice must be described equally.
// What is read may be hostile: everything is checked against the size of the file before it is believed, memory stays
// in proportion to the JSON, and faults are user errors that name file, tensor and values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tensor/dtype.h"

namespace sluice::safetensors {

// Every element type of the format that other programs write.
enum class Type : uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  f8_e8m0,
  boolean
};

size_t size_of(Type type);
std::string_view name_of(Type type);  // "BF16"
std::optional<Type> type_named(std::string_view name);
Type type_of(DType dtype);

// A name that may hold anything, as a short JSON text: for messages.
std::string in_quotes(std::string_view name);

using Extents = std::vector<int64_t>;
std::string to_text(const Extents& shape);  // "[2, 3]"

struct TensorSpec {
  std::string name;
  Type type = Type::f32;
  Extents shape;  // empty: one element

  bool operator==(const TensorSpec&) const = default;
};
// Product of the extents times the size of the type; a user error where that does not fit 63 bits.
uint64_t bytes_of(const TensorSpec& spec);

struct Entry {
  TensorSpec spec;
  uint64_t begin = 0;  // in the file
  uint64_t bytes = 0;

  bool operator==(const Entry&) const = default;
};

using Metadata = std::map<std::string, std::string>;

struct Header {
  std::vector<Entry> entries;  // as they lie in the file
  Metadata metadata;

  bool operator==(const Header&) const = default;
};

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;
inline constexpr size_t kMaxRank = 16;

// `file` is the whole file, of which only the header is touched; `source` its name for errors.
Header parse_header(std::span<const std::byte> file, std::string_view source);
// Bytes before the tensors, as the file begins; no more than it has.
uint64_t header_bytes(std::span<const std::byte> file);

// A header for these tensors in the order they shall lie in: by falling size of their elements (so that each starts at
// a multiple of it), else as given.
Header lay_out(std::vector<TensorSpec> tensors, Metadata metadata);
// The bytes before the tensors: a multiple of 8.
std::string header_text(const Header& header);

struct Index {
  std::map<std::string, std::string> files;  // tensor -> name of the file beside the index
  uint64_t total_bytes = 0;                  // of all tensors: written, not read
};
Index parse_index(std::string_view json, std::string_view source);
std::string index_text(const Index& index);

}  // namespace sluice::safetensors
