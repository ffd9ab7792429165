#include "support/gradient_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/philox.h"

namespace sluice::test {

namespace {

// Distinct seeds for the output gradients, what gradient buffers hold beforehand, and directions.
constexpr uint64_t kOutputSeed = 1000;
constexpr uint64_t kPrefillSeed = 2000;
constexpr uint64_t kDirectionSeed = 3000;

// Keeps an observer on a context while it lives.
class Observing {
 public:
  Observing(Context& ctx, OpObserver* observer) : ctx_(ctx), observer_(observer) {
    if (observer_ != nullptr) ctx_.add_observer(observer_);
  }
  ~Observing() {
    if (observer_ != nullptr) ctx_.remove_observer(observer_);
  }
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;

 private:
  Context& ctx_;
  OpObserver* observer_;
};

// Gives the arenas back, however a run ends.
struct Resetting {
  TestContext& tc;
  ~Resetting() noexcept(false) { tc.reset(); }
};

std::vector<double> output_gradient(const Program& program, size_t i, const Shape& shape, uint64_t seed) {
  if (program.output_gradient) return program.output_gradient(i, shape);
  return random_values(shape.numel(), kOutputSeed * seed + i);
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

double loss_of(const Program& program, const std::vector<Tensor>& outputs, uint64_t seed) {
  double loss = 0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    loss += dot(values_of(outputs[i]), output_gradient(program, i, outputs[i].shape(), seed));
  }
  return loss;
}

// The loss with a variable moved by `amount` along `direction`.
double moved_loss(TestContext& tc, const Program& program, const Variable& variable,
                  const std::vector<double>& direction, double amount, uint64_t seed) {
  const std::vector<double> was = values_of(variable.value);
  std::vector<double> now = was;
  for (size_t i = 0; i < now.size(); ++i) now[i] += amount * direction[i];
  assign(variable.value, now);
  double loss = 0;
  {
    const Resetting resetting{tc};
    loss = loss_of(program, program.forward(*tc), seed);
  }
  assign(variable.value, was);
  return loss;
}

// Checks one variable's gradient against differences.
class Differences {
 public:
  Differences(TestContext& tc, const Program& program, const GradientOptions& options)
      : tc_(tc), program_(program), options_(options) {}

  void check(const Variable& variable, const std::vector<double>& gradient) const {
    const size_t n = gradient.size();
    double largest = 0;
    for (const double g : gradient) largest = std::max(largest, std::abs(g));
    if (largest == 0) largest = 1;
    if (static_cast<int64_t>(n) <= options_.elements) {
      for (size_t i = 0; i < n; ++i) {
        std::vector<double> unit(n);
        unit[i] = 1;
        const double expected = derivative(variable, unit);
        EXPECT_TRUE(std::abs(gradient[i] - expected) <= options_.tolerance * largest)
            << "gradient of " << variable.name << "[" << i << "] is " << gradient[i] << ", the difference " << expected;
      }
      return;
    }
    const double length = std::sqrt(dot(gradient, gradient));
    const double norm = length == 0 ? 1 : length;
    for (int d = 0; d < options_.directions; ++d) {
      const uint64_t seed = kDirectionSeed * options_.seed + static_cast<uint64_t>(d);
      const std::vector<double> direction = random_values(static_cast<int64_t>(n), seed);
      const double expected = derivative(variable, direction);
      const double got = dot(gradient, direction);
      EXPECT_TRUE(std::abs(got - expected) <= options_.tolerance * norm)
          << "gradient of " << variable.name << " along direction " << d << " is " << got << ", the difference "
          << expected << " (norm " << norm << ")";
    }
  }

 private:
  double derivative(const Variable& variable, const std::vector<double>& direction) const {
    const double h = options_.step;
    const double above = moved_loss(tc_, program_, variable, direction, h, options_.seed);
    const double below = moved_loss(tc_, program_, variable, direction, -h, options_.seed);
    return (above - below) / (2 * h);
  }

  TestContext& tc_;
  const Program& program_;
  const GradientOptions& options_;
};

}  // namespace

std::vector<Result> run_program(TestContext& tc, const Program& program, uint64_t seed, OpObserver* observer) {
  const Resetting resetting{tc};
  const Observing observing(*tc, observer);
  std::vector<std::vector<double>> prefills;
  for (const Variable& v : program.variables) {
    prefills.push_back(v.gradient ? random_values(v.gradient.numel(), kPrefillSeed * seed + prefills.size())
                                  : std::vector<double>());
    if (v.gradient) assign(v.gradient, prefills.back());
  }
  std::vector<Result> results;
  const std::vector<Tensor> outputs = program.forward(*tc);
  results.push_back({"loss", {loss_of(program, outputs, seed)}, Tensor()});
  std::vector<Tensor> doutputs;
  for (size_t i = 0; i < outputs.size(); ++i) {
    doutputs.push_back(tc->activations().empty(outputs[i].shape(), outputs[i].dtype()));
    assign(doutputs.back(), output_gradient(program, i, outputs[i].shape(), seed));
  }
  const std::vector<Tensor> returned = program.backward(*tc, doutputs);
  size_t next = 0;
  for (size_t i = 0; i < program.variables.size(); ++i) {
    const Variable& v = program.variables[i];
    require(v.gradient.defined() || next < returned.size(), "backward returned no gradient of {}", v.name);
    const Tensor gradient = v.gradient ? v.gradient : returned[next++];
    require(gradient.shape() == v.value.shape(), "the gradient of {} is {}, it is {}", v.name, gradient.str(),
            v.value.str());
    std::vector<double> values = values_of(gradient);
    for (size_t j = 0; j < prefills[i].size(); ++j) values[j] -= prefills[i][j];
    results.push_back({v.name, std::move(values), gradient});
  }
  require(next == returned.size(), "backward returned {} gradients, {} are wanted", returned.size(), next);
  return results;
}

MutationReport check_gradients(TestContext& tc, const Program& program, const GradientOptions& options) {
  OutputPoison poison;
  const std::vector<Result> results = run_program(tc, program, options.seed, &poison);
  EXPECT_FALSE(program.variables.empty()) << "nothing to check";
  EXPECT_TRUE(std::isfinite(results[0].values[0])) << "the loss is " << results[0].values[0];
  EXPECT_NE(results[0].values[0], 0) << "the loss is zero";
  const Differences differences(tc, program, options);
  for (size_t i = 0; i < program.variables.size(); ++i) {
    const Variable& v = program.variables[i];
    const std::vector<double>& gradient = results[i + 1].values;
    const bool zero = std::all_of(gradient.begin(), gradient.end(), [](double g) { return g == 0; });
    const bool may_be_zero = std::find(options.zero.begin(), options.zero.end(), v.name) != options.zero.end();
    EXPECT_EQ(zero, may_be_zero) << "the gradient of " << v.name << " (" << gradient.size() << " elements)";
    differences.check(v, gradient);
  }
  if (!options.mutations) return {};
  const ObservedRun run = [&](OpObserver& observer) { return run_program(tc, program, options.seed, &observer); };
  return expect_no_survivors(
      run, {.threshold = 10 * options.tolerance, .seed = options.seed, .equivalent = options.equivalent});
}

}  // namespace sluice::test
