#include <algorithm>
#include <cstring>

#include "base/philox.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/storage.h"
#include "device/cpu/stream_kernels.h"

namespace sluice {

namespace {

// Elements of a chunk.
constexpr int64_t kGrain = int64_t{1} << 16;

// Calls f(first element of a row, begin and end within it) for pieces of [0, rows) x [0, inner), at most kGrain
// elements a chunk. Dense tensors are one row.
template <class F>
void for_pieces(Pool& pool, const Tensor& t, bool dense, F&& f) {
  if (t.numel() == 0) return;
  const int64_t inner = dense ? t.numel() : t.shape().inner();
  const int64_t rows = t.numel() / inner;
  if (rows == 1) {
    pool.run_ranges(inner, kGrain, [&](int64_t begin, int64_t end, int) { f(0, begin, end); });
    return;
  }
  pool.run_ranges(rows, std::max<int64_t>(1, kGrain / inner), [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row) f(row, 0, inner);
  });
}

}  // namespace

void CpuBackend::execute(const Fill& op, const Tensor& /*scratch*/) {
  const auto fill = [&]<class T>(T value) {
    for_pieces(pool_, op.x, op.x.dense(), [&](int64_t row, int64_t begin, int64_t end) {
      T* x = op.x.data<T>() + row * op.x.stride();
      std::fill(x + begin, x + end, value);
    });
  };
  if (op.x.dtype() == DType::i32) {
    fill(static_cast<int32_t>(op.value));
  } else {
    dispatch_float(op.x.dtype(), [&]<class T>(T) { fill(static_cast<T>(op.value)); });
  }
}

void CpuBackend::execute(const FillNormal& op, const Tensor& /*scratch*/) {
  constexpr int64_t kNormals = 4096;
  const Philox random(op.key);
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    pool_.run_ranges(op.x.numel(), kNormals, [&](int64_t begin, int64_t end, int) {
      T* x = op.x.data<T>();
      // Both normals of a pair are made at once; a range may begin or end in the middle of one.
      for (int64_t i = begin; i < end;) {
        const int64_t index = op.first + i;
        const auto pair = random.normal_pair(static_cast<uint64_t>(index / 2));
        for (auto half = static_cast<size_t>(index % 2); half < 2 && i < end; ++half, ++i) {
          x[i] = static_cast<T>(op.std * pair[half]);
        }
      }
    });
  });
}

void CpuBackend::execute(const Copy& op, const Tensor& /*scratch*/) {
  const bool dense = op.x.dense() && op.y.dense();
  const DType from = op.x.dtype(), to = op.y.dtype();
  if (from == to) {
    const auto size = static_cast<int64_t>(size_of(from));
    for_pieces(pool_, op.x, dense, [&](int64_t row, int64_t begin, int64_t end) {
      std::memcpy(static_cast<char*>(op.y.raw()) + (row * op.y.stride() + begin) * size,
                  static_cast<const char*>(op.x.raw()) + (row * op.x.stride() + begin) * size,
                  static_cast<size_t>((end - begin) * size));
    });
  } else if (from == DType::bf16 && to == DType::f32) {
    for_pieces(pool_, op.x, dense, [&](int64_t row, int64_t begin, int64_t end) {
      cpu::stream_kernels<bf16>().to_f32(op.y.data<float>() + row * op.y.stride() + begin,
                                         op.x.data<bf16>() + row * op.x.stride() + begin, end - begin);
    });
  } else if (from == DType::f32 && to == DType::bf16) {
    for_pieces(pool_, op.x, dense, [&](int64_t row, int64_t begin, int64_t end) {
      cpu::stream_kernels<bf16>().from_f32(op.y.data<bf16>() + row * op.y.stride() + begin,
                                           op.x.data<float>() + row * op.x.stride() + begin, end - begin);
    });
  } else {
    dispatch_float(from, [&]<class X>(X) {
      dispatch_float(to, [&]<class Y>(Y) {
        for_pieces(pool_, op.x, dense, [&](int64_t row, int64_t begin, int64_t end) {
          const X* x = op.x.data<X>() + row * op.x.stride();
          Y* y = op.y.data<Y>() + row * op.y.stride();
          for (int64_t i = begin; i < end; ++i) y[i] = static_cast<Y>(static_cast<accumulator_t<X>>(x[i]));
        });
      });
    });
  }
}

void CpuBackend::execute(const Add& op, const Tensor& scratch) {
  const bool done = cpu::dispatch_storage(op.y.dtype(), [&]<class T>(T) {
    for_pieces(pool_, op.y, op.x.dense() && op.y.dense(), [&](int64_t row, int64_t begin, int64_t end) {
      cpu::stream_kernels<T>().add(op.y.data<T>() + row * op.y.stride() + begin,
                                   op.x.data<T>() + row * op.x.stride() + begin, end - begin);
    });
  });
  if (!done) RefBackend::execute(op, scratch);
}

void CpuBackend::execute(const Sum& op, const Tensor& scratch) {
  const bool done = cpu::dispatch_storage(op.x.dtype(), [&]<class T>(T) {
    auto* parts = static_cast<double*>(scratch.raw());
    pool_.run_ranges(op.x.numel(), Sum::kPart, [&](int64_t begin, int64_t end, int) {
      parts[begin / Sum::kPart] = cpu::stream_kernels<T>().sum(op.x.data<T>() + begin, end - begin, op.squares);
    });
    double total = 0;
    for (int64_t begin = 0; begin < op.x.numel(); begin += Sum::kPart) total += parts[begin / Sum::kPart];
    op.sum.data<double>()[0] += total;
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
