#include <algorithm>

#include "device/cpu/bias_kernels.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/storage.h"
#include "device/ref/loops.h"

namespace sluice {

using namespace cpu;

namespace {

// Elements a chunk aims at, and the columns of a gradient that one chunk owns.
constexpr int64_t kGrain = 16384;
constexpr int64_t kColumns = 128;

int64_t grain(int64_t columns) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(columns, 1));
}

// Calls f(e, first, last) for the part of every expert's rows that lies in [begin, end).
template <class F>
void for_segments(const Tensor& offsets, int64_t begin, int64_t end, F&& f) {
  if (!offsets) {
    f(int64_t{0}, begin, end);
    return;
  }
  const auto* at = offsets.data<int32_t>();
  const int64_t num_experts = offsets.dim(0) - 1;
  for (int64_t e = std::max<int64_t>(0, std::upper_bound(at, at + num_experts, begin) - at - 1);
       e < num_experts && at[e] < end; ++e) {
    const int64_t first = std::max<int64_t>(begin, at[e]);
    const int64_t last = std::min<int64_t>(end, at[e + 1]);
    if (first < last) f(e, first, last);
  }
}

ScaledRows rows_of(const Tensor& t, const Tensor& weight, int64_t first, int64_t last) {
  return {.factor = weight ? weight.data<float>() + first : nullptr,
          .stride = t.stride(),
          .rows = last - first,
          .n = t.dim(1)};
}

}  // namespace

void CpuBackend::execute(const AddBias& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.y.dtype(), [&]<class T>(T) {
    const int64_t rows = op.y.dim(0);
    if (op.offsets) ref::check_offsets(op.offsets, rows);
    pool_.run_ranges(rows, grain(op.y.dim(1)), [&](int64_t begin, int64_t end, int) {
      for_segments(op.offsets, begin, end, [&](int64_t e, int64_t first, int64_t last) {
        bias_kernels<T>().add_bias(rows_of(op.y, op.weight, first, last), op.y.data<T>() + first * op.y.stride(),
                                   op.b.data<T>() + e * op.b.stride());
      });
    });
  });
  if (!done) RefBackend::execute(op, scratch);
}

// A chunk of db is some columns of one expert, added up in order of rows; one of dweight is some rows.
void CpuBackend::execute(const BiasBackward& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.dy.dtype(), [&]<class T>(T) {
    const int64_t rows = op.dy.dim(0);
    const int64_t width = op.dy.dim(1);
    if (op.offsets) ref::check_offsets(op.offsets, rows);
    const int64_t blocks = (width + kColumns - 1) / kColumns;
    pool_.run(op.db.dim(0) * blocks, [&](int64_t chunk, int) {
      const int64_t e = chunk / blocks;
      const int64_t column = chunk % blocks * kColumns;
      const int64_t first = op.offsets ? op.offsets.data<int32_t>()[e] : 0;
      const int64_t last = op.offsets ? op.offsets.data<int32_t>()[e + 1] : rows;
      ScaledRows shape = rows_of(op.dy, op.weight, first, last);
      shape.n = std::min(kColumns, width - column);
      bias_kernels<T>().sum_scaled(shape, op.dy.data<T>() + first * op.dy.stride() + column,
                                   op.db.data<float>() + e * op.db.stride() + column);
    });
    if (!op.dweight) return;
    pool_.run_ranges(rows, grain(width), [&](int64_t begin, int64_t end, int) {
      for_segments(op.offsets, begin, end, [&](int64_t e, int64_t first, int64_t last) {
        bias_kernels<T>().add_dots(rows_of(op.dy, {}, first, last), op.dy.data<T>() + first * op.dy.stride(),
                                   op.b.data<T>() + e * op.b.stride(), op.dweight.data<float>() + first);
      });
    });
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
