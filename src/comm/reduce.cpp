#include "comm/reduce.h"

#include <algorithm>
#include <array>

namespace sluice {

namespace {

constexpr int64_t kBlock = 1024;

template <class T, class Sum>
void reduce(ReduceOp op, std::span<void* const> out, std::span<const void* const> in, int64_t n) {
  std::array<Sum, kBlock> sum;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = std::min(kBlock, n - begin);
    for (size_t rank = 0; rank < in.size(); ++rank) {
      const T* x = static_cast<const T*>(in[rank]) + begin;
      Sum* acc = sum.data();
      if (rank == 0) {
        for (int64_t i = 0; i < count; ++i) acc[i] = static_cast<Sum>(x[i]);
      } else if (op == ReduceOp::sum) {
        for (int64_t i = 0; i < count; ++i) acc[i] += static_cast<Sum>(x[i]);
      } else {
        for (int64_t i = 0; i < count; ++i) {
          const Sum v = static_cast<Sum>(x[i]);
          acc[i] = v > acc[i] || v != v ? v : acc[i];
        }
      }
    }
    for (void* target : out) {
      T* y = static_cast<T*>(target) + begin;
      for (int64_t i = 0; i < count; ++i) y[i] = T(sum[static_cast<size_t>(i)]);
    }
  }
}

}  // namespace

void reduce_buffers(DType dtype, ReduceOp op, std::span<void* const> out, std::span<const void* const> in, int64_t n) {
  switch (dtype) {
    case DType::f64:
      return reduce<double, double>(op, out, in, n);
    case DType::f32:
      return reduce<float, float>(op, out, in, n);
    case DType::bf16:
      return reduce<bf16, float>(op, out, in, n);
    case DType::i64:
      return reduce<int64_t, int64_t>(op, out, in, n);
    case DType::i32:
      return reduce<int32_t, int32_t>(op, out, in, n);
    default:
      break;
  }
  require(false, "{} cannot be reduced", name_of(dtype));
}

}  // namespace sluice
