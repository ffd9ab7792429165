// What module tests start from: parameters bound to random values and gradient buffers, and inputs whose routing does
// not change under the step of a finite difference.
#pragma once

#include <cmath>
#include <vector>

#include "nn/param.h"
#include "support/gradient_check.h"
#include "support/known_mutants.h"

namespace sluice::test {

// Gives every parameter of `module` a random value (gamma about 1, matrices scaled by their fan-in) and a gradient
// buffer, and returns them as variables; but not selection biases, which have no gradient (theirs is a count from 0).
template <class Module>
std::vector<Variable> bind_parameters(TestContext& tc, Module& module, uint64_t seed = 100) {
  std::vector<Variable> variables;
  module.visit([&](Param& param) {
    const Shape& shape = param.local_shape;
    const double fan_in = static_cast<double>(shape[shape.rank() - 1]);
    const bool gamma = param.spec.init == InitKind::ones;
    param.value = gamma ? tc.random(shape, seed, 0.3, 1) : tc.random(shape, seed, 1 / std::sqrt(fan_in));
    param.grad = tc.empty(shape, tc.accumulator());
    if (param.spec.balanced_top_k == 0) {
      variables.push_back({param.spec.name, param.value, param.grad});
    } else {
      tc->run(Fill{.x = param.grad, .value = 0});
    }
    ++seed;
  });
  return variables;
}

// How far routing is from changing: over all tokens, the smallest gap of logits between consecutive ones of the K + 1
// most probable experts.
double routing_margin(const Tensor& probs, int64_t top_k);
// For a sigmoid router, a tensor whose margin is that of its choices, the scores with its bias added.
Tensor choices_of(TestContext& tc, const Tensor& scores, const Tensor& bias);

// Draws x until the routing that `probs_of()` computes from it has a comfortable margin.
template <class F>
void draw_routed(TestContext& tc, const Tensor& x, int64_t top_k, F&& probs_of) {
  constexpr double kComfortable = 0.02;
  constexpr uint64_t kTries = 200;
  for (uint64_t seed = 1; seed <= kTries; ++seed) {
    randomize(x, seed);
    const double margin = routing_margin(probs_of(), top_k);
    tc.reset();
    if (margin > kComfortable) return;
  }
  FAIL() << "no input of " << kTries << " has a routing margin of " << kComfortable;
}

}  // namespace sluice::test
