// One rank's file of a checkpoint, laid out in blocks: a safetensors file with a tensor for each slice, named
// KIND/PARAMETER ("moment1/layers.3.attention.qkv"). A slice that is a whole parameter has its shape, another is flat;
// the header's metadata says of each parameter its shape and where the slice begins:
//   "layers.3.attention.qkv": "512x256 from 65536"
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors_format.h"
#include "checkpoint/state_slice.h"

namespace sluice {

std::string rank_file_name(int rank);  // "rank-00000.safetensors"
std::string slice_name(StateKind kind, std::string_view parameter);

// What the metadata says of a slice.
struct SlicePlace {
  safetensors::Extents shape;  // of the parameter
  int64_t first = 0;
};
std::string slice_place_text(const SlicePlace& place);
// User error that names `source` where the text is something else, or the shape has more elements than can be counted.
SlicePlace parse_slice_place(std::string_view text, std::string_view source);

// Blocks are a power of two, at least a MiB, so that a file has at most 4096.
uint64_t block_bytes_of(uint64_t file_bytes);

class RankFile {
 public:
  // The slices' memory must outlive the object; at most one slice for each kind and parameter,
  // those of a parameter from the same element on.
  explicit RankFile(const std::vector<StateSlice>& slices);

  uint64_t bytes() const { return bytes_; }
  uint64_t block_bytes() const { return block_bytes_; }
  size_t blocks() const { return (bytes_ + block_bytes_ - 1) / block_bytes_; }
  uint64_t bytes_of_block(size_t block) const;

  // A run of bytes of the file: text of the header, or elements of a slice.
  struct Part {
    std::span<const std::byte> header = {};
    Tensor values = {};  // flat; where it is defined it is the part

    size_t bytes() const { return values ? values.bytes() : header.size(); }
  };
  // What a block consists of, in order.
  std::vector<Part> parts(size_t block) const;

 private:
  struct Placed {
    uint64_t begin = 0;  // in the file
    Tensor values;       // flat
  };

  std::string header_;
  std::vector<Placed> placed_;  // by rising begin
  uint64_t bytes_ = 0;
  uint64_t block_bytes_ = 0;
};

}  // namespace sluice
