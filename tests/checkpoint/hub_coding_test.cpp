// FP8 and MXFP4 weights against formulas written independently: numbers are found by their definition (sign, exponent,
// fraction, with ldexp), places by walking the whole tensor.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>

#include "checkpoint/hub_weights.h"
#include "support.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using safetensors::Type;
using test::error_of;
using test::expect_user_error;

double e4m3(int bits) {
  const int exponent = bits / 8 % 16, fraction = bits % 8;
  if (exponent == 15 && fraction == 7) return std::nan("");
  const double magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(1 + fraction / 8.0, exponent - 7);
  return bits >= 128 ? -magnitude : magnitude;
}

double e2m1(int bits) {
  const int exponent = bits / 2 % 4, fraction = bits % 2;
  const double magnitude = exponent == 0 ? fraction * 0.5 : std::ldexp(1 + fraction / 2.0, exponent - 1);
  return bits >= 8 ? -magnitude : magnitude;
}

struct HubCodingTest : test::InDirectory {
  struct Stored {
    Type type;
    safetensors::Extents shape;
    std::string bytes;
  };
  fs::path write_hub(const std::map<std::string, Stored>& tensors) const {
    std::vector<safetensors::TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, tensor.type, tensor.shape});
    safetensors::Writer writer(directory_ / "model.safetensors", specs);
    const std::vector<safetensors::Entry> entries = writer.entries();
    for (const auto& entry : entries) writer.write(entry.spec.name, test::bytes_of(tensors.at(entry.spec.name).bytes));
    writer.finish();
    return directory_;
  }

  std::string random_bytes(size_t count) {
    std::string bytes(count, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random_() & 0xff);
    return bytes;
  }

  std::mt19937 random_{7};
};

template <class T>
std::vector<T> line(const HubWeight& weight, int64_t first, int64_t stride, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  read_line(weight, first, stride, tensor_of(values.data(), {count}));
  return values;
}

// Whole, and in lines of several steps and beginnings, which must all agree.
void expect_values(const HubWeight& weight, const std::vector<double>& expected) {
  const auto same = [](double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); };
  const auto count = std::ssize(expected);
  ASSERT_EQ(weight.numel(), count);
  const std::vector<double> whole = line<double>(weight, 0, 1, count);
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_PRED2(same, whole[i], expected[i]) << i;
  const int64_t last = weight.shape.back();
  for (const int64_t stride : {int64_t{1}, int64_t{3}, last, last + 1, 2 * last}) {
    for (int64_t first = 0; first < std::min<int64_t>(count, 3 * last); first += 1 + last / 3) {
      const int64_t length = (count - first + stride - 1) / stride;
      const std::vector<float> part = line<float>(weight, first, stride, length);
      for (int64_t j = 0; j < length; ++j) {
        ASSERT_PRED2(same, part[static_cast<size_t>(j)], expected[static_cast<size_t>(first + j * stride)])
            << first << " + " << j << " * " << stride;
      }
    }
  }
}

TEST_F(HubCodingTest, Fp8InBlocks) {
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 256}, {128, 128}, {130, 300}, {257, 127}, {5, 1}}) {
    SCOPED_TRACE(fmt::format("{} x {}", rows, cols));
    std::string codes = random_bytes(static_cast<size_t>(rows * cols));
    for (int code = 0; code < std::min<int>(256, static_cast<int>(codes.size())); ++code)
      codes[static_cast<size_t>(code)] = static_cast<char>(code);
    const int64_t block_rows = (rows + 127) / 128, block_cols = (cols + 127) / 128;
    std::vector<float> factors;
    for (int64_t i = 0; i < block_rows * block_cols; ++i) factors.push_back(0.37F * static_cast<float>(i + 1));
    write_hub({{"w", {Type::f8_e4m3, {rows, cols}, codes}},
               {"w_scale_inv",
                {Type::f32,
                 {block_rows, block_cols},
                 std::string(reinterpret_cast<const char*>(factors.data()), 4 * factors.size())}}});
    const HubWeights hub(directory_);
    ASSERT_EQ(hub.weights().size(), 1U);
    std::vector<double> expected;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double code = e4m3(static_cast<uint8_t>(codes[static_cast<size_t>(r * cols + c)]));
        // The product in f32, as the models' own code makes it.
        expected.push_back(static_cast<float>(code) * factors[static_cast<size_t>(r / 128 * block_cols + c / 128)]);
      }
    }
    const HubWeight& weight = hub.weights().at("w");
    EXPECT_EQ(weight.shape, (safetensors::Extents{rows, cols}));
    expect_values(weight, expected);
    const std::vector<bf16> rounded = line<bf16>(weight, 0, 1, std::min<int64_t>(100, rows * cols));
    for (size_t i = 0; i < rounded.size(); ++i) EXPECT_EQ(rounded[i].bits, bf16(expected[i]).bits);
  }
}

TEST_F(HubCodingTest, Mxfp4Transposed) {
  for (const auto& [E, O, I] : {std::tuple<int64_t, int64_t, int64_t>{2, 6, 64}, {1, 1, 32}, {3, 5, 96}, {2, 40, 32}}) {
    SCOPED_TRACE(fmt::format("{} {} {}", E, O, I));
    const std::string codes = random_bytes(static_cast<size_t>(E * O * I / 2));
    std::string scales = random_bytes(static_cast<size_t>(E * O * I / 32));
    for (char& scale : scales) scale = static_cast<char>(100 + static_cast<uint8_t>(scale) % 50);
    scales[0] = 0;  // 2^-127, which f32 has without its leading one
    write_hub({{"w_blocks", {Type::u8, {E, O, I / 32, 16}, codes}}, {"w_scales", {Type::u8, {E, O, I / 32}, scales}}});
    const HubWeights hub(directory_);
    ASSERT_EQ(hub.weights().size(), 1U);
    std::vector<double> expected(static_cast<size_t>(E * I * O));
    size_t at = 0;  // in the order of the stored numbers
    for (int64_t e = 0; e < E; ++e) {
      for (int64_t o = 0; o < O; ++o) {
        for (int64_t i = 0; i < I; ++i, ++at) {
          const auto byte = static_cast<uint8_t>(codes[at / 2]);
          const double number = e2m1(at % 2 == 0 ? byte % 16 : byte / 16);
          expected[static_cast<size_t>((e * I + i) * O + o)] =
              std::ldexp(number, static_cast<uint8_t>(scales[at / 32]) - 127);
        }
      }
    }
    const HubWeight& weight = hub.weights().at("w");
    EXPECT_EQ(weight.shape, (safetensors::Extents{E, I, O}));
    expect_values(weight, expected);
  }
}

TEST_F(HubCodingTest, AScaleThatIsNoNumberMakesNone) {
  write_hub(
      {{"w_blocks", {Type::u8, {1, 1, 1, 16}, std::string(16, '\x22')}}, {"w_scales", {Type::u8, {1, 1, 1}, "\xff"}}});
  const HubWeights hub(directory_);
  for (const float value : line<float>(hub.weights().at("w"), 0, 1, 32)) EXPECT_TRUE(std::isnan(value));
}

TEST_F(HubCodingTest, WhatCannotBeDecodedIsNamed) {
  const auto refused = [&](const std::map<std::string, Stored>& tensors, const std::vector<std::string>& parts) {
    write_hub(tensors);
    expect_user_error(error_of([&] { HubWeights hub(directory_); }), parts);
  };
  const Stored codes{Type::f8_e4m3, {130, 4}, std::string(520, '\1')};
  const auto factors = [](int64_t rows, int64_t cols) {
    return Stored{Type::f32, {rows, cols}, std::string(static_cast<size_t>(4 * rows * cols), '\1')};
  };
  refused({{"w", codes}}, {"\"w\" of F8_E4M3[130, 4]", "w_scale_inv"});
  refused({{"w", codes}, {"w_scale_inv", factors(1, 1)}}, {"\"w\" of F8_E4M3[130, 4]", "\"w_scale_inv\" of F32[1, 1]"});
  refused({{"w", codes}, {"w_scale_inv", factors(1, 2)}}, {"F32[1, 2]", "128 x 128"});
  refused({{"w", codes}, {"w_scale_inv", {Type::bf16, {2, 1}, std::string(4, '\1')}}}, {"BF16[2, 1]"});
  refused({{"w", {Type::f8_e4m3, {4}, std::string(4, '\1')}}, {"w_scale_inv", factors(1, 1)}}, {"F8_E4M3[4]"});
  const Stored blocks{Type::u8, {1, 2, 1, 16}, std::string(32, '\1')};
  const Stored scales{Type::u8, {1, 2, 1}, std::string(2, '\1')};
  refused({{"w_blocks", blocks}, {"w_scales", {Type::u8, {2, 1}, "ab"}}},
          {"\"w_blocks\" of U8[1, 2, 1, 16]", "U8[2, 1]"});
  refused({{"w_blocks", blocks}, {"w_scales", {Type::i8, {1, 2, 1}, "ab"}}}, {"I8[1, 2, 1]"});
  refused({{"w_blocks", {Type::u8, {1, 2, 2, 8}, std::string(32, '\1')}}, {"w_scales", {Type::u8, {1, 2, 2}, "abcd"}}},
          {"U8[1, 2, 2, 8]"});
  refused({{"w_blocks", blocks}, {"w_scales", scales}, {"w", {Type::f32, {1}, std::string(4, '\1')}}}, {"twice"});
  // Scales without blocks are a tensor like any other.
  write_hub({{"w_scales", scales}});
  EXPECT_EQ(HubWeights(directory_).weights().count("w_scales"), 1U);
  // Empty ones with extents beyond all bounds.
  refused({{"w_blocks", {Type::u8, {0, 2, int64_t{1} << 60, 16}, ""}},
           {"w_scales", {Type::u8, {0, 2, int64_t{1} << 60}, ""}}},
          {"cannot be decoded"});
}

}  // namespace
}  // namespace sluice
