#include "ops/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/gradient_check.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class SwigluOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(SwigluOps);

TEST_P(SwigluOps, ByHand) {
  TestContext tc(DType::f64, GetParam());
  const Tensor gate_up = tc.of({2, 4}, DType::f64, {0, 1, 5, 3, -1, 100, 2, 0.5}), h = tc.empty({2, 2});
  const Tensor weight = tc.of({2}, DType::f64, {1, 10});
  tc->run(SwigluForward{.h = h, .gate_up = gate_up, .weight = weight});
  const double s1 = 1 / (1 + std::exp(-1)), s_1 = 1 / (1 + std::exp(1));
  EXPECT_TRUE(close(h, std::vector{0., 3 * s1, -20 * s_1, 500.}, tolerance(DType::f64)));
}

TEST_P(SwigluOps, FarValuesStayFinite) {
  for (const DType dtype : kStorage) {
    TestContext tc(dtype, GetParam());
    const Tensor gate_up = tc.of({1, 4}, dtype, {-2000, 2000, 1, 1}), h = tc.empty({1, 2}), d = tc.empty({1, 4});
    tc->run(SwigluForward{.h = h, .gate_up = gate_up});
    EXPECT_TRUE(close(h, std::vector{0., 2000.}, tolerance(dtype)));
    tc->run(SwigluBackward{.dgate_up = d, .dh = tc.of({1, 2}, dtype, {1, 1}), .gate_up = gate_up});
    EXPECT_TRUE(close(d, std::vector{0., 1., 0., 2000.}, tolerance(dtype)));
  }
}

// Gates above the limit and up values outside of it are cut, and then have no gradient.
TEST_P(SwigluOps, ClampedForm) {
  TestContext tc(DType::f64, GetParam());
  const SwigluForm form{.limit = 7, .alpha = 1.702};
  const Tensor gate_up = tc.of({1, 6}, DType::f64, {1, 9, -20, 2, -8, 10}), h = tc.empty({1, 3}), d = tc.empty({1, 6});
  tc->run(SwigluForward{.h = h, .gate_up = gate_up, .form = form});
  const auto s = [](double x) { return 1 / (1 + std::exp(-1.702 * x)); };
  EXPECT_TRUE(close(h, std::vector{s(1) * 3, 7 * s(7) * -6, -20 * s(-20) * 8}, tolerance(DType::f64, 8)));
  tc->run(SwigluBackward{.dgate_up = d, .dh = tc.of({1, 3}, DType::f64, {1, 1, 1}), .gate_up = gate_up, .form = form});
  const double slope = s(1) * (1 + 1.702 * (1 - s(1))), far = s(-20) * (1 + 1.702 * -20 * (1 - s(-20)));
  EXPECT_TRUE(close(d, std::vector{3 * slope, 0., 8 * far, s(1), 0., 0.}, tolerance(DType::f64, 8)));
}

TEST_P(SwigluOps, AgreesWithRef) {
  for (const DType dtype : kStorage) {
    for (const Shape& shape : {Shape{0, 4}, Shape{1, 1}, Shape{5, 17}, Shape{300, 33}, Shape{7, 256}}) {
      for (int variant = 0; variant < 8; ++variant) {
        const bool strided = variant % 2 != 0, weighted = variant >= 2, in_place = variant == 4 || variant == 5;
        const SwigluForm form = variant >= 6 ? SwigluForm{.limit = 1.5, .alpha = 1.702} : SwigluForm{};
        compare(dtype, shape[1], [&](TestContext& tc) {
          const Shape wide{shape[0], 2 * shape[1]};
          const auto make = [&](Shape s, uint64_t seed) {
            const Tensor t = strided ? tc.strided(s, dtype) : tc.empty(s);
            randomize(t, seed, 3);
            return t;
          };
          const Tensor gate_up = make(wide, 1), h = make(shape, 2), dh = make(shape, 3);
          const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {shape[0]}, 4) : Tensor();
          const Tensor dweight = weighted ? tc.empty({shape[0]}, tc.accumulator()) : Tensor();
          const Tensor dgate_up = in_place ? gate_up : make(wide, 5);
          tc->run(SwigluForward{.h = h, .gate_up = gate_up, .weight = weight, .form = form});
          tc->run(SwigluBackward{
              .dgate_up = dgate_up, .dweight = dweight, .dh = dh, .gate_up = gate_up, .weight = weight, .form = form});
          return weighted ? std::vector{h, dgate_up, dweight} : std::vector{h, dgate_up};
        });
      }
    }
  }
}

TEST(SwigluGradient, WithAndWithoutWeightAndInPlace) {
  for (int variant = 0; variant < 8; ++variant) {
    const bool weighted = variant % 2 != 0, in_place = variant / 2 % 2 != 0;
    const SwigluForm form = variant >= 4 ? SwigluForm{.limit = 0.9, .alpha = 1.702} : SwigluForm{};
    TestContext tc(DType::f64);
    const Tensor gate_up = tc.random({4, 6}, 1), weight = weighted ? tc.random({4}, 2) : Tensor();
    Tensor kept;
    Program program;
    program.variables = {{"gate_up", gate_up}};
    if (weighted) program.variables.push_back({"weight", weight});
    program.forward = [&](Context& ctx) {
      const Tensor h = ctx.activations().empty({4, 3}, DType::f64);
      kept = ctx.activations().empty_like(gate_up);
      ctx.run(Copy{.y = kept, .x = gate_up});
      ctx.run(SwigluForward{.h = h, .gate_up = kept, .weight = weight, .form = form});
      return std::vector{h};
    };
    program.backward = [&](Context& ctx, const std::vector<Tensor>& dout) {
      const Tensor d = in_place ? kept : ctx.activations().empty_like(gate_up);
      const Tensor dweight = weighted ? ctx.activations().empty({4}, DType::f64) : Tensor();
      ctx.run(SwigluBackward{
          .dgate_up = d, .dweight = dweight, .dh = dout[0], .gate_up = kept, .weight = weight, .form = form});
      return weighted ? std::vector{d, dweight} : std::vector{d};
    };
    const MutationReport report = check_gradients(tc, program);
    EXPECT_TRUE(report.unused.empty()) << report.str();
  }
}

TEST(SwigluCheck, RejectsWhatDoesNotFit) {
  TestContext tc(DType::bf16);
  const Tensor h = tc.empty({3, 4}), gate_up = tc.empty({3, 8});
  EXPECT_NO_THROW((SwigluForward{.h = h, .gate_up = gate_up}.check()));
  EXPECT_REJECTED((SwigluForward{.h = h, .gate_up = h}), "swiglu_forward: gate_up is bf16[3, 4], expected bf16[3, 8]");
  EXPECT_REJECTED((SwigluForward{.h = h, .gate_up = gate_up, .weight = tc.empty({3})}),
                  "weight is bf16[3], expected f32[3]");
  EXPECT_REJECTED(
      (SwigluBackward{.dgate_up = gate_up, .dweight = tc.empty({3}, DType::f32), .dh = h, .gate_up = gate_up}),
      "dweight without weight");
}

}  // namespace
}  // namespace sluice::test
