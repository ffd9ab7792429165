#include "ops/attention.h"

#include <algorithm>

namespace sluice {

namespace {

void check_inputs(std::string_view op, const Tensor& q, const Tensor& k, const Tensor& v, const AttentionSpec& spec) {
  expect_float(op, "q", q, 3);
  expect_float(op, "k", k, 3);
  expect_float(op, "v", v, 3);
  require(spec.seq_len > 0 && q.dim(0) % spec.seq_len == 0, "{}: {} rows are not sequences of {}", op, q.dim(0),
          spec.seq_len);
  require(spec.past >= 0, "{}: {} past keys", op, spec.past);
  const int64_t keys = q.dim(0) / spec.seq_len * spec.keys();
  expect(op, "k", k, {keys, k.dim(1), q.dim(2)}, q.dtype());
  expect(op, "v", v, {keys, k.dim(1), v.dim(2)}, q.dtype());
  require(k.dim(1) > 0 && q.dim(1) % k.dim(1) == 0, "{}: {} key/value heads do not divide {} query heads", op, k.dim(1),
          q.dim(1));
  require(spec.window >= 0, "{}: the window is {}", op, spec.window);
}

// Query-key pairs that count, over all sequences and query heads.
double all_pairs(const Tensor& q, const AttentionSpec& spec) {
  const int64_t sequences = spec.seq_len > 0 ? q.dim(0) / spec.seq_len : 0;
  return spec.pairs() * static_cast<double>(sequences * q.dim(1));
}

// Of any instruction set: rows of a register tile, and floats of a row of scores.
constexpr int64_t kMostRows = 16;
constexpr int64_t kScoreRow = kAttentionKeys + kAttentionPad;

int64_t padded(int64_t n) {
  return (n + kAttentionPad - 1) / kAttentionPad * kAttentionPad;
}

// Of a workspace of so many floats, with room to align its pieces.
size_t bytes_of(int64_t floats) {
  constexpr int64_t kMostPieces = 16;
  return static_cast<size_t>((floats + kMostPieces * kAttentionPad + 63) / 64 * 64) * sizeof(float);
}

// Of cuDNN's plans for CUDA: the statistics, and little.
size_t plan_scratch(const Tensor& lse) {
  constexpr size_t kMostLittle = 4096;  // 9.19 takes 256
  return (lse.bytes() + kAttentionScratchAlign - 1) / kAttentionScratchAlign * kAttentionScratchAlign + kMostLittle;
}

}  // namespace

double AttentionSpec::pairs() const {
  // Of the first `count` positions.
  const auto pairs_of = [this](int64_t count) {
    const auto s = static_cast<double>(count);
    if (window <= 0 || window >= count) return s * (s + 1) / 2;
    const auto w = static_cast<double>(window);
    return w * (w + 1) / 2 + (s - w) * w;
  };
  return pairs_of(keys()) - pairs_of(past);
}

void AttentionForward::check() const {
  check_inputs(name, q, k, v, spec);
  expect(name, "o", o, {q.dim(0), q.dim(1), v.dim(2)}, q.dtype());
  expect_dense(name, "lse", lse, {q.dim(0), q.dim(1)}, accumulator_of(q.dtype()));
}

double AttentionForward::flops() const {
  return all_pairs(q, spec) * 2.0 * static_cast<double>(q.dim(2) + v.dim(2));
}

size_t AttentionForward::workspace() const {
  if (q.dtype() != DType::f32) return 0;
  const int64_t keys = padded(spec.keys());
  const int64_t row = padded(q.dim(2)) + padded(v.dim(2));
  return bytes_of(keys * row + kMostRows * (row + kScoreRow));
}

size_t AttentionForward::scratch(const Target& target) const {
  if (target.platform == Platform::cuda) return q.dtype() == DType::bf16 ? plan_scratch(lse) : 0;
  return static_cast<size_t>(target.workers) * workspace();
}

void AttentionBackward::check() const {
  check_inputs(name, q, k, v, spec);
  require(spec.past == 0, "{}: {} past keys, which have no gradient", name, spec.past);
  const Shape o_shape{q.dim(0), q.dim(1), v.dim(2)};
  expect(name, "o", o, o_shape, q.dtype());
  expect(name, "d_o", d_o, o_shape, q.dtype());
  expect_dense(name, "lse", lse, {q.dim(0), q.dim(1)}, accumulator_of(q.dtype()));
  expect(name, "dq", dq, q.shape(), q.dtype());
  expect(name, "dk", dk, k.shape(), q.dtype());
  expect(name, "dv", dv, v.shape(), q.dtype());
}

double AttentionBackward::flops() const {
  return all_pairs(q, spec) * static_cast<double>(6 * q.dim(2) + 4 * v.dim(2));
}

size_t AttentionBackward::workspace() const {
  if (q.dtype() != DType::f32) return 0;
  const int64_t keys = padded(spec.seq_len);
  const int64_t dim = padded(q.dim(2));
  const int64_t v_dim = padded(v.dim(2));
  // Packed keys twice and values; dk, dv. Then of a block: q, dq, d_o, scores twice, a panel and a statistic.
  return bytes_of(keys * (3 * dim + 2 * v_dim) + kAttentionQueries * (2 * dim + v_dim + 2 * kScoreRow + 1) +
                  kMostRows * std::max(dim, v_dim));
}

size_t AttentionBackward::scratch(const Target& target) const {
  if (target.platform == Platform::cuda) {
    const size_t delta = lse.bytes();  // <do, o> of each row and head
    if (q.dtype() != DType::bf16) return delta;
    // Plans sum dq up in f32, and make dk and dv for every query head.
    const size_t dq_sum = static_cast<size_t>(q.numel()) * sizeof(float);
    const int64_t per_head = q.dim(1) == k.dim(1) ? 0 : q.dim(2) + v.dim(2);
    return plan_scratch(lse) + delta + dq_sum +
           static_cast<size_t>(q.dim(0) * q.dim(1) * per_head) * size_of(q.dtype());
  }
  return static_cast<size_t>(target.workers) * workspace();
}

}  // namespace sluice
