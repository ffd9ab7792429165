#include "ops/dispatch.h"

#include <algorithm>

namespace sluice {

void DispatchPlan::check() const {
  expect_dense(name, "experts", experts, {experts.dim(0), experts.dim(1)}, DType::i32);
  const int64_t num_tokens = experts.dim(0);
  const int64_t num_ranks = counts.dim(0);
  require(num_ranks > 0 && num_experts > 0 && num_experts % num_ranks == 0, "{}: {} experts on {} ranks", name,
          num_experts, num_ranks);
  const int64_t width = std::min(experts.dim(1), num_ranks);
  expect_dense(name, "counts", counts, {num_ranks, 2}, DType::i32);
  expect_dense(name, "send_token", send_token, {num_tokens * width}, DType::i32);
  expect_dense(name, "send_row", send_row, {num_tokens, width}, DType::i32);
}

void ExpertSort::check() const {
  expect_dense(name, "experts", experts, {experts.dim(0), experts.dim(1)}, DType::i32);
  require(offsets.dim(0) >= 1, "{}: offsets {} has no room for the total", name, offsets.str());
  expect_dense(name, "offsets", offsets, {offsets.dim(0)}, DType::i32);
  expect_dense(name, "row_token", row_token, {row_token.dim(0)}, DType::i32);
  expect_dense(name, "row_slot", row_slot, {row_token.dim(0)}, DType::i32);
  expect_dense(name, "slot_row", slot_row, experts.shape(), DType::i32);
  require(first >= 0 && row_align >= 1, "{}: first expert {}, row_align {}", name, first, row_align);
  require(!folded || (first == 0 && offsets.dim(0) > 1), "{}: folded onto {} experts from {}", name, offsets.dim(0) - 1,
          first);
}

void InvertIndex::check() const {
  expect(name, "inverse", inverse, {inverse.numel()}, DType::i32);
  expect(name, "index", index, {index.numel()}, DType::i32);
}

void GatherRows::check() const {
  expect(name, "x", x, {x.dim(0), x.dim(1)}, x.dtype());
  expect(name, "y", y, {y.dim(0), x.dim(1)}, x.dtype());
  expect_dense(name, "index", index, {y.dim(0)}, DType::i32);
}

void SumRows::check() const {
  expect_float(name, "y", y, 2);
  expect(name, "x", x, {x.dim(0), y.dim(1)}, y.dtype());
  expect_dense(name, "index", index, {y.dim(0), index.dim(1)}, DType::i32);
  if (add) expect(name, "add", add, y.shape(), y.dtype());
}

double SumRows::flops() const {
  return static_cast<double>(index.numel() + (add ? y.dim(0) : 0)) * static_cast<double>(y.dim(1));
}

}  // namespace sluice
