#include <algorithm>
#include <array>
#include <cstring>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/storage.h"
#include "device/cpu/stream_kernels.h"

namespace sluice {

namespace {

// Rows a chunk moves.
constexpr int64_t kRows = 64;

int64_t checked_row(int64_t index, int64_t rows) {
  require(index < rows, "row {} is not in [0, {})", index, rows);
  return index;
}

}  // namespace

// A counting sort. `offsets` serves as the experts' cursors: it counts, then holds where each expert's next row goes,
// then is set back to where each expert began.
void CpuBackend::execute(const ExpertSort& op, const Tensor& /*scratch*/) {
  const int64_t num_experts = op.offsets.dim(0) - 1;
  const int64_t num_tokens = op.experts.dim(0);
  const int64_t top_k = op.experts.dim(1);
  const int64_t max_rows = op.row_token.dim(0);
  const auto expert = [&, experts = op.experts.data<int32_t>()](int64_t i) -> int64_t {
    return op.folded ? experts[i] % num_experts : experts[i];
  };
  auto* offsets = op.offsets.data<int32_t>();
  auto* row_token = op.row_token.data<int32_t>();
  auto* row_slot = op.row_slot.data<int32_t>();
  auto* slot_row = op.slot_row.data<int32_t>();
  const auto is_local = [&](int64_t e) { return e >= op.first && e < op.first + num_experts; };
  const auto segment = [&](int64_t count) {
    if (op.row_align > 1) count = std::max<int64_t>(count, 1);
    return (count + op.row_align - 1) / op.row_align * op.row_align;
  };

  std::fill_n(offsets, num_experts + 1, 0);
  for (int64_t i = 0; i < num_tokens * top_k; ++i) {
    if (is_local(expert(i))) ++offsets[expert(i) - op.first];
  }
  int64_t begin = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    const int64_t rows = segment(offsets[e]);
    offsets[e] = static_cast<int32_t>(begin);
    begin += rows;
  }
  require(begin <= max_rows, "expert_sort: more than {} expert rows", max_rows);
  offsets[num_experts] = static_cast<int32_t>(begin);

  std::fill_n(row_token, max_rows, -1);
  std::fill_n(row_slot, max_rows, -1);
  for (int64_t t = 0; t < num_tokens; ++t) {
    int32_t* rows = slot_row + t * top_k;
    int64_t used = 0;
    for (int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
      if (!is_local(expert(i))) continue;
      const int32_t row = offsets[expert(i) - op.first]++;
      row_token[row] = static_cast<int32_t>(t);
      row_slot[row] = static_cast<int32_t>(i);
      int64_t place = used++;
      for (; place > 0 && rows[place - 1] > row; --place) rows[place] = rows[place - 1];
      rows[place] = row;
    }
    std::fill(rows + used, rows + top_k, -1);
  }

  int64_t start = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    const int64_t count = offsets[e] - start;
    offsets[e] = static_cast<int32_t>(start);
    start += segment(count);
  }
}

void CpuBackend::execute(const GatherRows& op, const Tensor& /*scratch*/) {
  const auto size = static_cast<int64_t>(size_of(op.x.dtype()));
  const auto row_bytes = static_cast<size_t>(op.x.dim(1) * size);
  const auto* index = op.index.data<int32_t>();
  const auto* x = static_cast<const char*>(op.x.raw());
  auto* y = static_cast<char*>(op.y.raw());
  const int64_t grain = op.x.dim(1) >= kRows ? kRows : kRows * kRows;
  pool_.run_ranges(op.y.dim(0), grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t m = begin; m < end; ++m) {
      char* to = y + m * op.y.stride() * size;
      if (index[m] < 0) {
        std::memset(to, 0, row_bytes);
      } else {
        std::memcpy(to, x + checked_row(index[m], op.x.dim(0)) * op.x.stride() * size, row_bytes);
      }
    }
  });
}

void CpuBackend::execute(const SumRows& op, const Tensor& scratch) {
  // Addends of one row, `add` included, whose pointers fit on the stack.
  constexpr int64_t kMost = 64;
  const int64_t width = op.index.dim(1);
  const auto sum = [&]<class T>(T) {
    const auto sum_rows = cpu::stream_kernels<T>().sum_rows;
    const auto* index = op.index.data<int32_t>();
    pool_.run_ranges(op.y.dim(0), kRows, [&](int64_t begin, int64_t end, int) {
      std::array<const T*, kMost> rows{};
      for (int64_t t = begin; t < end; ++t) {
        size_t count = 0;
        for (int64_t j = 0; j < width; ++j) {
          const int64_t m = index[t * width + j];
          if (m >= 0) rows[count++] = op.x.data<T>() + checked_row(m, op.x.dim(0)) * op.x.stride();
        }
        if (op.add) rows[count++] = op.add.data<T>() + t * op.add.stride();
        sum_rows(op.y.data<T>() + t * op.y.stride(), rows.data(), static_cast<int64_t>(count), op.y.dim(1));
      }
    });
  };
  if (width >= kMost || !cpu::dispatch_storage(op.y.dtype(), sum)) RefBackend::execute(op, scratch);
}

}  // namespace sluice
