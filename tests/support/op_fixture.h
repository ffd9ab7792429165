// A test fixture for operations, run once per backend: OpTest::compare holds a backend to `ref`.
//   class FooOps : public OpTest {};
//   SLUICE_ON_ALL_BACKENDS(FooOps);
//   TEST_P(FooOps, AgreesWithRef) { compare(dtype, reduction, [&](TestContext& tc) { ...; return std::vector{y}; }); }
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "support/compare.h"
#include "support/test_context.h"

namespace sluice::test {

inline constexpr std::array kStorage{DType::f64, DType::f32, DType::bf16};

class OpTest : public testing::TestWithParam<BackendCase> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }

  // Runs `program` on ref and on the backend, on the same inputs. Floating results agree within the tolerance of their
  // dtype for sums of `reduction` terms (gradients of bf16 runs, kept in f32, within that of bf16); others exactly.
  template <class F>
  void compare(DType dtype, int64_t reduction, F&& program) {
    compare_within(dtype, tolerance(dtype, reduction), program);
  }

  // The same within another tolerance.
  template <class F>
  void compare_within(DType dtype, const Tolerance& allowed, F&& program) {
    TestContext expected_context(dtype), context(dtype, GetParam());
    const std::vector<Tensor> expected = program(expected_context), got = program(context);
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      SCOPED_TRACE("result " + std::to_string(i) + ", " + got[i].str());
      ASSERT_EQ(got[i].shape(), expected[i].shape());
      if (got[i].numel() == 0) continue;
      if (is_float(got[i].dtype())) {
        EXPECT_TRUE(close(got[i], expected[i], allowed));
      } else {
        EXPECT_TRUE(same(got[i], expected[i]));
      }
    }
  }
};

#define SLUICE_ON_ALL_BACKENDS(Fixture)                                                    \
  INSTANTIATE_TEST_SUITE_P(Backends, Fixture, testing::ValuesIn(sluice::test::backends()), \
                           [](const auto& tested) { return tested.param.name; })

// Expects op.check() to throw a message that contains `text`.
#define EXPECT_REJECTED(op, text)                                                                             \
  try {                                                                                                       \
    (op).check();                                                                                             \
    ADD_FAILURE() << "accepted";                                                                              \
  } catch (const sluice::Error& error) {                                                                      \
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << "the message is: " << error.what(); \
  }

}  // namespace sluice::test
