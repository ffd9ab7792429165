// The weights of a model as a hub directory holds them, quantised or not, seen as plain tensors of numbers:
//   plain   NAME of F64, F32, F16 or BF16
//   FP8     NAME of F8_E4M3 [R, C] and NAME_scale_inv of F32, one factor for each 128 x 128 block   (DeepSeek V3)
//   MXFP4   NAME_blocks of U8 [E, O, I/32, 16], two E2M1 numbers a byte, the lower half first, and NAME_scales of U8
//           [E, O, I/32], powers of two with bias 127; seen transposed, as NAME [E, I, O]             (GPT-OSS)
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "checkpoint/safetensors.h"

namespace sluice {

enum class HubCoding : uint8_t { plain, fp8, mxfp4 };

struct HubWeight {
  HubCoding coding = HubCoding::plain;
  safetensors::Extents shape;  // as it is seen
  safetensors::StoredTensor values;
  safetensors::StoredTensor scales;  // of a quantised one

  int64_t numel() const;
};

// Elements first, first + stride, ... of a weight, decoded and rounded once to the dtype of `to`, a dense host tensor.
// May be called by several threads.
void read_line(const HubWeight& from, int64_t first, int64_t stride, const Tensor& to);

class HubWeights {
 public:
  // User error for what is no safetensors model, and for quantised tensors without scales or of other shapes.
  explicit HubWeights(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return stored_.path(); }
  const safetensors::Model& stored() const { return stored_; }
  const std::map<std::string, HubWeight, std::less<>>& weights() const { return weights_; }
  uint64_t bytes() const { return stored_.bytes(); }

 private:
  struct Seen {
    std::string name;
    HubWeight weight;
  };
  const safetensors::StoredTensor* find(const std::string& name) const;
  // How a stored tensor is seen; nothing for scales, which belong to another.
  std::optional<Seen> seen_as(const std::string& name, const safetensors::StoredTensor& tensor) const;

  safetensors::Model stored_;
  std::map<std::string, HubWeight, std::less<>> weights_;
};

}  // namespace sluice
