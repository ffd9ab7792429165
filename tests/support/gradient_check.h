// Gradients against finite differences in f64, and the proof that the check can fail.
//
// A Program is a piece of the engine with inputs: a forward that returns outputs, a backward that is given the gradient
// of a scalar with respect to them. The scalar is  loss = sum <output, R>  with random R. check_gradients
//   1. runs it, and demands that every gradient is non-zero;
//   2. compares each gradient with central differences: element by element if there are few, else along random
//      directions (every element takes part in each);
//   3. breaks every tensor of every operation in turn (mutation.h) and demands that loss or a gradient then differs
//   from
//      the proven ones by more than the tolerance of 2.
//
//   TestContext tc(DType::f64);
//   const Tensor x = tc.random({T, D}, 1), gamma = tc.random({D}, 2, 0.3, 1);
//   const Tensor dgamma = tc.empty({D});
//   Saved saved;  // whatever the two share
//   check_gradients(tc, {
//       .variables = {{"x", x}, {"gamma", gamma, dgamma}},
//       .forward = [&](Context& ctx) { saved = {}; return std::vector{norm.forward(ctx, x, saved)}; },
//       .backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
//         return std::vector{norm.backward(ctx, dout[0], saved)};
//       }});
//
// forward and backward allocate in the context's arenas, which are given back after each run; they leave variables as
// they are, and are called many times, so whatever they share is set anew by forward. Deferred weight gradients and
// rebuilds belong in `backward`.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "support/mutation.h"
#include "support/test_context.h"

namespace sluice::test {

// A tensor the loss depends on. With `gradient`, backward adds to that buffer (it is filled with known numbers before
// each run, so that `=` in place of `+=` shows); without, backward returns the gradient.
struct Variable {
  std::string name;
  Tensor value;
  Tensor gradient;
};

struct Program {
  std::vector<Variable> variables;
  std::function<std::vector<Tensor>(Context&)> forward;
  // Returns the gradients of the variables without a buffer, in their order.
  std::function<std::vector<Tensor>(Context&, const std::vector<Tensor>& doutputs)> backward;
  // R of each output; random if not given. For operations that are told it beforehand.
  std::function<std::vector<double>(size_t output, const Shape& shape)> output_gradient;
};

struct GradientOptions {
  double step = 1e-5;       // of the central difference
  double tolerance = 1e-6;  // of a gradient's largest element, or of its norm along a direction
  int directions = 3;
  int64_t elements = 64;  // variables with at most as many elements are checked one by one
  bool mutations = true;
  uint64_t seed = 1;
  std::vector<Equivalent> equivalent;
  std::vector<std::string> zero;  // variables whose gradient is rightly zero
};

// Fails the current test where something is wrong; returns what the mutations found.
MutationReport check_gradients(TestContext& tc, const Program& program, const GradientOptions& options = {});

// The loss and all gradients of one run, "loss" first: to compare two ways of computing the same, or to mutate.
std::vector<Result> run_program(TestContext& tc, const Program& program, uint64_t seed = 1,
                                OpObserver* observer = nullptr);

}  // namespace sluice::test
