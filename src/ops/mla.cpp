#include "ops/mla.h"

namespace sluice {

namespace {

// What both directions share, under the names of one of them.
struct Names {
  std::string_view op, q, k, v, kv, k_pe;
};

void check_heads(const Names& name, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& kv,
                 const Tensor& k_pe, const Tensor& cos_sin) {
  expect_float(name.op, name.q, q, 3);
  expect_float(name.op, name.v, v, 3);
  require(k_pe.rank() == 2 && k_pe.dim(1) % 2 == 0 && k_pe.dim(1) <= q.dim(2), "{}: {} {} does not fit {} {}", name.op,
          name.k_pe, k_pe.str(), name.q, q.str());
  const int64_t t = q.dim(0), n = q.dim(1), rotary = k_pe.dim(1), nope = q.dim(2) - rotary;
  expect(name.op, name.k, k, {t, n, nope + rotary}, q.dtype());
  expect(name.op, name.v, v, {t, n, v.dim(2)}, q.dtype());
  expect(name.op, name.kv, kv, {t, n, nope + v.dim(2)}, q.dtype());
  expect(name.op, name.k_pe, k_pe, {t, rotary}, q.dtype());
  require(cos_sin.dim(0) > 0, "{}: cos_sin {} has no positions", name.op, cos_sin.str());
  expect_dense(name.op, "cos_sin", cos_sin, {cos_sin.dim(0), rotary}, accumulator_of(q.dtype()));
}

}  // namespace

void MlaHeads::check() const {
  check_heads({name, "q", "k", "v", "kv", "k_pe"}, q, k, v, kv, k_pe, cos_sin);
}

double MlaHeads::flops() const {
  return 3.0 * static_cast<double>(k_pe.numel()) * static_cast<double>(q.dim(1) + 1);
}

void MlaHeadsBackward::check() const {
  check_heads({name, "dq", "dk", "dv", "dkv", "dk_pe"}, dq, dk, dv, dkv, dk_pe, cos_sin);
}

double MlaHeadsBackward::flops() const {
  return 4.0 * static_cast<double>(dk_pe.numel()) * static_cast<double>(dq.dim(1) + 1);
}

}  // namespace sluice
