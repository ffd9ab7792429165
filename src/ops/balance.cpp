#include "ops/balance.h"

namespace sluice {

namespace {

void expect_accumulator(std::string_view op, std::string_view tensor, const Tensor& t, int rank) {
  expect_float(op, tensor, t, rank);
  require(t.dtype() != DType::bf16, "{}: {} is {}, expected the accumulator type", op, tensor, t.str());
}

}  // namespace

void ExpertLoad::check() const {
  expect_accumulator(name, "load", load, 1);
  require(experts.rank() == 2, "{}: experts are {}", name, experts.str());
  expect_dense(name, "experts", experts, experts.shape(), DType::i32);
}

void BalanceLossBackward::check() const {
  expect_accumulator(name, "dlogits", dlogits, 2);
  expect(name, "probs", probs, dlogits.shape(), dlogits.dtype());
  expect_accumulator(name, "load", load, 2);
  expect_dense(name, "load", load, {load.dim(0), dlogits.dim(1)}, dlogits.dtype());
  require(load.dim(0) >= 1 && dlogits.dim(0) % load.dim(0) == 0, "{}: {} runs of {} tokens", name, load.dim(0),
          dlogits.dim(0));
  expect_dense(name, "grad_scale", grad_scale, {1}, DType::f64);
  require(slots >= 1, "{}: loads of {} slots", name, slots);
}

double BalanceLossBackward::flops() const {
  return 5.0 * static_cast<double>(dlogits.numel());
}

void BalanceBias::check() const {
  expect_accumulator(name, "bias", bias, 1);
  expect(name, "load", load, bias.shape(), bias.dtype());
}

void LoadShare::check() const {
  expect_accumulator(name, "share", share, 1);
  expect(name, "load", load, share.shape(), share.dtype());
  require(slots > 0, "{}: loads of {} slots", name, slots);
}

}  // namespace sluice
