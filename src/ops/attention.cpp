#include "ops/attention.h"

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

}  // namespace sluice
