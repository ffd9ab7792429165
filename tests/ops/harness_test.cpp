// The test machinery itself: it must notice what is wrong, and only that.
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

TEST(Compare, FailsClosed) {
  const std::vector<double> a{1, 2}, longer{1, 2, 3}, nan{1, NAN}, inf{1, INFINITY}, none;
  const Tolerance loose{1e9, 1e9};
  EXPECT_TRUE(close(a, a, {}));
  EXPECT_FALSE(close(a, longer, loose));
  EXPECT_FALSE(close(nan, a, loose));
  EXPECT_FALSE(close(a, nan, loose));
  EXPECT_FALSE(close(nan, nan, loose));
  EXPECT_FALSE(close(inf, a, loose));
  EXPECT_FALSE(close(a, inf, loose));
  EXPECT_FALSE(close(none, none, loose));
  EXPECT_FALSE(close(a, a, {NAN, 1}));
}

TEST(Compare, GlobalAndWorstRow) {
  const std::vector<double> expected{100, 100, 1, 1}, got{100, 100.5, 1.25, 1};
  const Difference d = difference(got, expected, 2);
  EXPECT_DOUBLE_EQ(d.global, 0.005);
  EXPECT_DOUBLE_EQ(d.row, 0.25);
  EXPECT_EQ(d.worst, 1U);
  EXPECT_EQ(difference(expected, std::vector<double>(4, 0), 2).global, INFINITY);
  EXPECT_EQ(difference(std::vector<double>(4, 0), std::vector<double>(4, 0), 2).global, 0);
}

TEST(Compare, RandomValuesAreNowhereNearZero) {
  for (const double x : random_values(1000, 3, 2)) {
    EXPECT_GE(std::abs(x), 0.4);
    EXPECT_LT(std::abs(x), 2.4);
  }
}

// y = a x in f64, with ways to get it wrong.
struct Scaling {
  explicit Scaling(TestContext& tc) : x(tc.random({3, 4}, 1)), a(tc.random({4, 4}, 2)), da(tc.empty({4, 4})) {}

  Program program(double wrong = 1, bool accumulate = true) {
    return {.variables = {{"x", x}, {"a", a, da}},
            .forward =
                [this](Context& ctx) {
                  const Tensor y = ctx.activations().empty({3, 4}, DType::f64);
                  ctx.run(Gemm{.c = y, .a = x, .b = a});
                  return std::vector{y};
                },
            .backward =
                [this, wrong, accumulate](Context& ctx, const std::vector<Tensor>& dout) {
                  const Tensor dx = ctx.activations().empty({3, 4}, DType::f64);
                  ctx.run(Gemm{.c = dx, .a = dout[0], .b = a, .trans_b = true});
                  ctx.run(Gemm{.c = da, .a = x, .b = dout[0], .trans_a = true, .accumulate = accumulate});
                  std::vector<double> values = values_of(dx);
                  values[5] *= wrong;
                  assign(dx, values);
                  return std::vector{dx};
                }};
  }

  Tensor x, a, da;
};

TEST(Harness, AcceptsWhatIsRight) {
  TestContext tc(DType::f64);
  Scaling scaling(tc);
  const MutationReport report = check_gradients(tc, scaling.program());
  EXPECT_EQ(report.ops, 3);
  // Three outputs by four, one of them also by `=`, and two inputs of each operation.
  EXPECT_EQ(report.mutants, 3 * 4 + 1 + 3 * 2);
  EXPECT_EQ(report.caught, report.mutants);
}

TEST(Harness, NoticesAWrongGradientAndAMissingAccumulation) {
  TestContext tc(DType::f64);
  Scaling scaling(tc);
  const GradientOptions differences_only{.mutations = false};
  EXPECT_NONFATAL_FAILURE(check_gradients(tc, scaling.program(1.0001), differences_only), "gradient of x[5] is");
  const GradientOptions along{.directions = 1, .elements = 1, .mutations = false};
  EXPECT_NONFATAL_FAILURE(check_gradients(tc, scaling.program(1.0001), along), "gradient of x along direction 0");
  TestContext other(DType::f64);
  Scaling overwriting(other);
  EXPECT_FALSE(std::abs(run_program(other, overwriting.program(1, false))[2].values[0] -
                        run_program(other, overwriting.program())[2].values[0]) < 1e-3);
}

TEST(Harness, NoticesAGradientThatIsZero) {
  TestContext tc(DType::f64);
  const Tensor x = tc.random({2}, 1), unseen = tc.random({2}, 2);
  const Program program{.variables = {{"x", x}, {"unseen", unseen}},
                        .forward =
                            [&](Context& ctx) {
                              const Tensor y = ctx.activations().empty({2}, DType::f64);
                              ctx.run(Copy{.y = y, .x = x});
                              return std::vector{y};
                            },
                        .backward =
                            [&](Context& ctx, const std::vector<Tensor>& dout) {
                              const Tensor zero = ctx.activations().empty({2}, DType::f64);
                              ctx.run(Fill{.x = zero, .value = 0});
                              return std::vector{dout[0], zero};
                            }};
  EXPECT_NONFATAL_FAILURE(check_gradients(tc, program, {.mutations = false}), "the gradient of unseen (2 elements)");
  EXPECT_TRUE(check_gradients(tc, program, {.zero = {"unseen"}}).survivors.empty());
}

// The results are blind to the sign of what passes through: only its squares are looked at.
std::vector<Result> blind_run(TestContext& tc, OpObserver& observer, bool unused_output) {
  tc.reset();
  tc->add_observer(&observer);
  const Tensor x = tc->activations().empty({4, 2}, DType::f64), y = tc->activations().empty({4, 2}, DType::f64);
  randomize(x, 1);
  tc->run(Copy{.y = y, .x = x});
  const Tensor sum = tc->activations().empty({1}, DType::f64);
  assign(sum, {3});
  tc->run(Sum{.sum = sum, .x = y, .squares = true});
  if (unused_output) tc->run(Copy{.y = tc->activations().empty({4, 2}, DType::f64), .x = y});
  tc->remove_observer(&observer);
  return {{"sum", values_of(sum), sum}};
}

TEST(Harness, ReportsSurvivorsEquivalentsAndUnusedOutputs) {
  TestContext tc(DType::f64);
  const ObservedRun run = [&](OpObserver& observer) { return blind_run(tc, observer, false); };
  MutationReport report = mutate(run);
  EXPECT_EQ(report.survivors, std::vector<std::string>{"0 copy.y negate (f64[4, 2])"});
  EXPECT_EQ(report.caught, report.mutants - 1);
  EXPECT_NONFATAL_FAILURE(expect_no_survivors(run), "SURVIVOR:   0 copy.y negate");
  report = mutate(run, {.equivalent = {{"copy", "y", "negate", "only squares count"}}});
  EXPECT_TRUE(report.survivors.empty());
  EXPECT_EQ(report.equivalent, std::vector<std::string>{"0 copy.y negate: only squares count"});

  const ObservedRun wasteful = [&](OpObserver& observer) { return blind_run(tc, observer, true); };
  report = mutate(wasteful, {.equivalent = {{"copy", "y", "negate", "only squares count"}}});
  EXPECT_TRUE(report.survivors.empty()) << report.str();
  EXPECT_EQ(report.unused, (std::vector<std::string>{"2 copy.y: no later operation reads it",
                                                     "2 copy.x: no output of this operation is used"}))
      << report.str();
  EXPECT_EQ(report.equivalent.size(), 1U) << report.str();
}

TEST(Harness, RestoresInputsAndSparesWhatTheOperationWrote) {
  TestContext tc(DType::f64);
  // h = gate_up in place is read again by a later operation: zeroing the input must not undo the output.
  const ObservedRun run = [&](OpObserver& observer) {
    tc.reset();
    tc->add_observer(&observer);
    const Tensor x = tc->activations().empty({2, 4}, DType::f64), dh = tc->activations().empty({2, 2}, DType::f64);
    randomize(x, 1);
    randomize(dh, 2);
    tc->run(SwigluBackward{.dgate_up = x, .dh = dh, .gate_up = x});
    const Tensor y = tc->activations().empty({2, 4}, DType::f64);
    tc->run(Copy{.y = y, .x = x});
    tc->remove_observer(&observer);
    return std::vector<Result>{{"y", values_of(y), y}, {"dh", values_of(dh), dh}};
  };
  const MutationReport report = expect_no_survivors(run);
  EXPECT_EQ(report.caught, report.mutants);
}

TEST(Harness, PoisonShowsAnOutputThatIsReadBeforeItIsWritten) {
  TestContext tc(DType::f64);
  OutputPoison poison;
  tc->add_observer(&poison);
  const Tensor c = tc.of({1, 1}, DType::f64, {5}), a = tc.of({1, 1}, DType::f64, {2});
  tc->run(Gemm{.c = c, .a = a, .b = a});
  EXPECT_TRUE(holds(c, {4}));
  // An empty reduction writes zero, it does not leave what was there.
  tc->run(Gemm{.c = c, .a = tc.empty({1, 0}), .b = tc.empty({0, 1})});
  EXPECT_TRUE(holds(c, {0}));
  tc->remove_observer(&poison);
}

#ifdef SLUICE_DEBUG_MEMORY
TEST(Harness, SentinelsCatchWritesBehindATensor) {
  EXPECT_NONFATAL_FAILURE(
      {
        TestContext tc(DType::f64);
        const Tensor x = tc.empty({3});
        tc->run(Fill{.x = Tensor(x.raw(), {4}, DType::f64), .value = 1});
      },
      "was written behind its end");
}
#endif

}  // namespace
}  // namespace sluice::test
