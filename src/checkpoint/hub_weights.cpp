#include "checkpoint/hub_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "base/error.h"
#include "checkpoint/hub_packing.h"

namespace sluice {
namespace {

using safetensors::StoredTensor;
using safetensors::Type;

constexpr int64_t kFp8Block = 128;
constexpr int64_t kMxBlock = 32;  // numbers that share a scale: 16 bytes
constexpr std::string_view kScaleInv = "_scale_inv";
constexpr std::string_view kBlocks = "_blocks";
constexpr std::string_view kScales = "_scales";

// 2^(exponent - 127) for a biased exponent; 255 is not a number.
constexpr float power_of_two(uint32_t biased) {
  if (biased == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(biased == 0 ? uint32_t{1} << 22 : biased << 23);
}

// The numbers of E4M3 without infinities: sign, 4 bits of exponent with bias 7, 3 of fraction.
constexpr std::array<float, 256> e4m3_numbers = [] {
  std::array<float, 256> numbers{};
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const uint32_t exponent = bits >> 3 & 15U, fraction = bits & 7U;
    float magnitude = exponent == 0 ? static_cast<float>(fraction) * power_of_two(127 - 9)
                                    : static_cast<float>(8 + fraction) * power_of_two(127 - 10 + exponent);
    if (exponent == 15 && fraction == 7) magnitude = std::numeric_limits<float>::quiet_NaN();
    numbers[bits] = bits < 128 ? magnitude : -magnitude;
  }
  return numbers;
}();

constexpr std::array<float, 16> e2m1_numbers{0, 0.5F, 1, 1.5F, 2, 3, 4, 6, -0.0F, -0.5F, -1, -1.5F, -2, -3, -4, -6};

uint8_t byte_at(const StoredTensor& tensor, int64_t at) {
  return static_cast<uint8_t>(tensor.bytes[static_cast<size_t>(at)]);
}

float factor_at(const StoredTensor& scales, int64_t at) {
  float factor = 0;
  std::memcpy(&factor, scales.bytes.data() + static_cast<size_t>(at) * sizeof factor, sizeof factor);
  return factor;
}

// w[r, c] = e4m3[r, c] scale[r / 128, c / 128]
template <class T>
void read_fp8(const HubWeight& w, int64_t first, int64_t stride, int64_t count, T* out) {
  const int64_t cols = w.shape[1], scale_cols = w.scales.spec.shape[1];
  while (count > 0) {
    const int64_t row = first / cols, col = first % cols;
    const float scale = factor_at(w.scales, row / kFp8Block * scale_cols + col / kFp8Block);
    // As far as the block goes in this row.
    const int64_t left = std::min(cols - col, kFp8Block - col % kFp8Block);
    const int64_t run = std::min(count, (left + stride - 1) / stride);
    for (int64_t j = 0; j < run; ++j) {
      out[j] = static_cast<T>(e4m3_numbers[byte_at(w.values, first + j * stride)] * scale);
    }
    out += run;
    first += run * stride;
    count -= run;
  }
}

// w[e, i, o] = e2m1[e, o, i] 2^(scale[e, o, i / 32] - 127)
template <class T>
void read_mxfp4(const HubWeight& w, int64_t first, int64_t stride, int64_t count, T* out) {
  const int64_t I = w.shape[1], O = w.shape[2], blocks = I / kMxBlock;
  const auto number = [&w](int64_t block, int64_t in_block) {
    const uint32_t pair = byte_at(w.values, block * (kMxBlock / 2) + in_block / 2);
    return e2m1_numbers[in_block % 2 == 0 ? pair & 15U : pair >> 4];
  };
  while (count > 0) {
    const int64_t e = first / (I * O), i = first / O % I, o = first % O;
    const int64_t block = (e * O + o) * blocks + i / kMxBlock;
    int64_t run = 1;
    if (stride == O) {  // along I: in one block for a while
      run = std::min(count, kMxBlock - i % kMxBlock);
      const float scale = power_of_two(byte_at(w.scales, block));
      for (int64_t j = 0; j < run; ++j) out[j] = static_cast<T>(number(block, i % kMxBlock + j) * scale);
    } else {  // along O: a block further with each
      run = stride == 1 ? std::min(count, O - o) : 1;
      for (int64_t j = 0; j < run; ++j) {
        const int64_t other = block + j * blocks;
        out[j] = static_cast<T>(number(other, i % kMxBlock) * power_of_two(byte_at(w.scales, other)));
      }
    }
    out += run;
    first += run * stride;
    count -= run;
  }
}

int64_t blocks_of(int64_t extent, int64_t block) {
  return extent / block + (extent % block != 0 ? 1 : 0);
}

// "model.weight of F8_E4M3[3, 4]"
std::string described(const StoredTensor& tensor) {
  return fmt::format("{} of {}{}", safetensors::in_quotes(tensor.spec.name), safetensors::name_of(tensor.spec.type),
                     safetensors::to_text(tensor.spec.shape));
}

HubWeight fp8_weight(const StoredTensor& values, const StoredTensor& scales) {
  const safetensors::Extents& shape = values.spec.shape;
  const bool fits =
      values.spec.type == Type::f8_e4m3 && scales.spec.type == Type::f32 && shape.size() == 2 &&
      scales.spec.shape == safetensors::Extents{blocks_of(shape[0], kFp8Block), blocks_of(shape[1], kFp8Block)};
  if (!fits) {
    throw user_error("{} cannot be decoded with {}", described(values), described(scales))
        .advise(fmt::format("FP8 weights are F8_E4M3[R, C] with F32 factors, one for each {} x {} block", kFp8Block,
                            kFp8Block));
  }
  return {HubCoding::fp8, shape, values, scales};
}

HubWeight mxfp4_weight(const StoredTensor& values, const StoredTensor& scales) {
  const safetensors::Extents& shape = values.spec.shape;
  const bool fits = values.spec.type == Type::u8 && scales.spec.type == Type::u8 && shape.size() == 4 &&
                    shape[3] == kMxBlock / 2 &&
                    scales.spec.shape == safetensors::Extents(shape.begin(), shape.begin() + 3);
  // Twice the bytes there are, so no product overflows unless another extent is 0.
  if (!fits || (!values.bytes.empty() && values.bytes.size() > uint64_t{1} << 61) ||
      (values.bytes.empty() && shape[2] > std::numeric_limits<int64_t>::max() / kMxBlock)) {
    throw user_error("{} cannot be decoded with {}", described(values), described(scales))
        .advise("MXFP4 weights are U8[E, out, in/32, 16] with scales U8[E, out, in/32]");
  }
  return {HubCoding::mxfp4, {shape[0], shape[2] * kMxBlock, shape[1]}, values, scales};
}

}  // namespace

int64_t HubWeight::numel() const {
  const auto numbers = static_cast<int64_t>(values.bytes.size() / safetensors::size_of(values.spec.type));
  return coding == HubCoding::mxfp4 ? 2 * numbers : numbers;
}

void read_line(const HubWeight& from, int64_t first, int64_t stride, const Tensor& to) {
  const int64_t count = to.numel();
  if (count == 0) return;
  require(first >= 0 && stride > 0 && first < from.numel() && (count - 1) <= (from.numel() - 1 - first) / stride,
          "{} elements from {} in steps of {} of {}", count, first, stride, from.values.spec.name);
  require(to.dense(), "elements are read into dense tensors, not {}", to.str());
  if (from.coding == HubCoding::plain) return safetensors::read_elements(from.values, first, to, stride);
  dispatch_float(to.dtype(), [&](auto type) {
    using T = decltype(type);
    if (from.coding == HubCoding::fp8) {
      read_fp8(from, first, stride, count, to.data<T>());
    } else {
      read_mxfp4(from, first, stride, count, to.data<T>());
    }
  });
}

HubWeights::HubWeights(const std::filesystem::path& path) : stored_(path) {
  for (const auto& [name, tensor] : stored_.tensors()) {
    std::optional<Seen> seen = seen_as(name, tensor);
    if (!seen) continue;
    if (!weights_.emplace(std::move(seen->name), std::move(seen->weight)).second) {
      throw user_error("{}: {} is there twice, plain and quantised", path.string(), safetensors::in_quotes(name));
    }
  }
}

const StoredTensor* HubWeights::find(const std::string& name) const {
  const auto found = stored_.tensors().find(name);
  return found == stored_.tensors().end() ? nullptr : &found->second;
}

std::optional<HubWeights::Seen> HubWeights::seen_as(const std::string& name, const StoredTensor& tensor) const {
  // The tensor whose name has another ending; null where the name has not this one.
  const auto partner = [&](std::string_view ending, std::string_view other) {
    return name.ends_with(ending) ? find(name.substr(0, name.size() - ending.size()).append(other)) : nullptr;
  };
  if (tensor.spec.type == Type::f8_e4m3) {
    const StoredTensor* scales = partner("", kScaleInv);
    if (scales == nullptr) {
      if (const std::optional<std::string> packing = unread_packing(stored_)) throw packed_by(path(), *packing);
      throw user_error("{}: {} has no factors {}{}", path().string(), described(tensor), name, kScaleInv);
    }
    return Seen{name, fp8_weight(tensor, *scales)};
  }
  if (const StoredTensor* scales = partner(kBlocks, kScales); scales != nullptr) {
    return Seen{name.substr(0, name.size() - kBlocks.size()), mxfp4_weight(tensor, *scales)};
  }
  // Read with their weights.
  const StoredTensor* scaled = partner(kScaleInv, "");
  if ((scaled != nullptr && scaled->spec.type == Type::f8_e4m3) || partner(kScales, kBlocks) != nullptr) return {};
  return Seen{name, {HubCoding::plain, tensor.spec.shape, tensor, {}}};
}

}  // namespace sluice
