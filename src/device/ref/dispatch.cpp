#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

void fill(const Tensor& t, int32_t value) {
  std::fill_n(t.data<int32_t>(), t.numel(), value);
}

}  // namespace

void RefBackend::execute(const DispatchPlan& op, const Tensor& /*scratch*/) {
  const int64_t num_tokens = op.experts.dim(0), top_k = op.experts.dim(1);
  const int64_t num_ranks = op.counts.dim(0), per_rank = op.num_experts / num_ranks, width = op.send_row.dim(1);
  const int32_t* experts = op.experts.data<int32_t>();
  int32_t* counts = op.counts.data<int32_t>();
  fill(op.counts, 0);
  fill(op.send_token, -1);
  fill(op.send_row, -1);
  std::vector<int64_t> used(static_cast<size_t>(num_tokens));  // send rows a token has so far
  int32_t send = 0;
  for (int64_t r = 0; r < num_ranks; ++r) {
    for (int64_t t = 0; t < num_tokens; ++t) {
      int32_t pairs = 0;
      for (int64_t j = 0; j < top_k; ++j) {
        pairs += checked("expert", experts[t * top_k + j], op.num_experts) / per_rank == r ? 1 : 0;
      }
      if (pairs == 0) continue;
      counts[2 * r] += 1;
      counts[2 * r + 1] += pairs;
      op.send_token.data<int32_t>()[send] = static_cast<int32_t>(t);
      op.send_row.data<int32_t>()[t * width + used[static_cast<size_t>(t)]++] = send++;
    }
  }
}

void RefBackend::execute(const ExpertSort& op, const Tensor& /*scratch*/) {
  const int64_t num_experts = op.offsets.dim(0) - 1, num_tokens = op.experts.dim(0), top_k = op.experts.dim(1);
  const int32_t* experts = op.experts.data<int32_t>();
  int32_t* offsets = op.offsets.data<int32_t>();
  fill(op.row_token, -1);
  fill(op.row_slot, -1);
  fill(op.slot_row, -1);
  std::vector<int64_t> used(static_cast<size_t>(num_tokens));  // rows a token has so far
  int64_t begin = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    offsets[e] = static_cast<int32_t>(begin);
    int64_t row = begin;
    for (int64_t i = 0; i < num_tokens * top_k; ++i) {
      if ((op.folded ? experts[i] % num_experts : experts[i]) != op.first + e) continue;
      require(row < op.row_token.dim(0), "expert_sort: more than {} expert rows", op.row_token.dim(0));
      const int64_t t = i / top_k;
      op.row_token.data<int32_t>()[row] = static_cast<int32_t>(t);
      op.row_slot.data<int32_t>()[row] = static_cast<int32_t>(i);
      op.slot_row.data<int32_t>()[t * top_k + used[static_cast<size_t>(t)]++] = static_cast<int32_t>(row);
      ++row;
    }
    const int64_t count = op.row_align > 1 ? std::max<int64_t>(row - begin, 1) : row - begin;
    begin += (count + op.row_align - 1) / op.row_align * op.row_align;
    require(begin <= op.row_token.dim(0), "expert_sort: more than {} expert rows", op.row_token.dim(0));
  }
  offsets[num_experts] = static_cast<int32_t>(begin);
}

void RefBackend::execute(const InvertIndex& op, const Tensor& /*scratch*/) {
  fill(op.inverse, -1);
  for (int64_t m = 0; m < op.index.dim(0); ++m) {
    const int64_t i = op.index.data<int32_t>()[m];
    if (i >= 0) op.inverse.data<int32_t>()[checked("index", i, op.inverse.dim(0))] = static_cast<int32_t>(m);
  }
}

void RefBackend::execute(const GatherRows& op, const Tensor& /*scratch*/) {
  const auto size = static_cast<int64_t>(size_of(op.x.dtype()));
  const auto row_bytes = static_cast<size_t>(op.x.dim(1) * size);
  for (int64_t m = 0; m < op.y.dim(0); ++m) {
    const int64_t t = op.index.data<int32_t>()[m];
    char* y = static_cast<char*>(op.y.raw()) + m * op.y.stride() * size;
    if (t < 0) {
      std::memset(y, 0, row_bytes);
    } else {
      const auto* x = static_cast<const char*>(op.x.raw());
      std::memcpy(y, x + checked("row", t, op.x.dim(0)) * op.x.stride() * size, row_bytes);
    }
  }
}

void RefBackend::execute(const SumRows& op, const Tensor& /*scratch*/) {
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t width = op.index.dim(1);
    for (int64_t t = 0; t < op.y.dim(0); ++t) {
      const int32_t* index = op.index.data<int32_t>() + t * width;
      for (int64_t d = 0; d < op.y.dim(1); ++d) {
        A sum = 0;
        for (int64_t j = 0; j < width; ++j) {
          if (index[j] >= 0) sum += static_cast<A>(row<T>(op.x, checked("row", index[j], op.x.dim(0)))[d]);
        }
        if (op.add) sum += static_cast<A>(row<T>(op.add, t)[d]);
        row<T>(op.y, t)[d] = static_cast<T>(sum);
      }
    }
  });
}

}  // namespace sluice
