// Attention of bf16 in the shapes that go to a library on CUDA, laid out as the models have them.
#include <gtest/gtest.h>

#include <cmath>

#include "ops/attention.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class AttentionPlanOps : public OpTest {};
SLUICE_ON_ALL_BACKENDS(AttentionPlanOps);

struct Sizes {
  const char* name;
  int64_t batch, seq_len, heads, kv_heads, dim, v_dim, window = 0;
};

const Sizes kSizes[] = {{"grouped heads", 1, 160, 4, 2, 64, 64},    {"window", 2, 128, 8, 1, 64, 64, 32},
                        {"wide heads", 2, 64, 4, 1, 128, 128},      {"latent heads", 2, 96, 2, 2, 192, 128},
                        {"odd lengths", 4, 33, 3, 3, 72, 96, 5},    {"two tokens", 2, 2, 2, 1, 64, 64},
                        {"rows cuDNN refuses", 1, 37, 3, 3, 64, 64}};

struct Results {
  std::vector<Tensor> forward, gradients;
};

// q, k and v are parts of one matrix, as their gradients are.
Results run(TestContext& tc, const Sizes& s) {
  const int64_t rows = s.batch * s.seq_len;
  const int64_t q_cols = s.heads * s.dim, k_cols = s.kv_heads * s.dim, v_cols = s.kv_heads * s.v_dim;
  const Tensor qkv = tc.random({rows, q_cols + k_cols + v_cols}, 1), dqkv = tc.empty(qkv.shape());
  const auto q_of = [&](const Tensor& t) { return t.cols(0, q_cols).split_cols(s.heads, s.dim); };
  const auto k_of = [&](const Tensor& t) { return t.cols(q_cols, k_cols).split_cols(s.kv_heads, s.dim); };
  const auto v_of = [&](const Tensor& t) { return t.cols(q_cols + k_cols, v_cols).split_cols(s.kv_heads, s.v_dim); };
  const Tensor o = tc.empty({rows, s.heads, s.v_dim}), d_o = tc.random(o.shape(), 2);
  const Tensor lse = tc.empty({rows, s.heads}, tc.accumulator());
  const AttentionSpec spec{.seq_len = s.seq_len, .window = s.window, .scale = 1 / std::sqrt(s.dim)};
  tc->run(AttentionForward{.o = o, .lse = lse, .q = q_of(qkv), .k = k_of(qkv), .v = v_of(qkv), .spec = spec});
  tc->run(AttentionBackward{.dq = q_of(dqkv),
                            .dk = k_of(dqkv),
                            .dv = v_of(dqkv),
                            .d_o = d_o,
                            .o = o,
                            .lse = lse,
                            .q = q_of(qkv),
                            .k = k_of(qkv),
                            .v = v_of(qkv),
                            .spec = spec});
  return {{o, lse, v_of(dqkv)}, {q_of(dqkv), k_of(dqkv)}};
}

// A library's kernels round probabilities and their gradients to bf16 before they multiply by them.
TEST_P(AttentionPlanOps, AgreesWithRef) {
  for (const Sizes& s : kSizes) {
    SCOPED_TRACE(s.name);
    TestContext expected_context(DType::bf16), context(DType::bf16, GetParam());
    const Results expected = run(expected_context, s), got = run(context, s);
    const Tolerance forward = tolerance(DType::bf16, 4 * s.seq_len * s.dim, 2);
    for (size_t i = 0; i < got.forward.size(); ++i) EXPECT_TRUE(close(got.forward[i], expected.forward[i], forward));
    // The first query sees one key: its dq is a difference of equals.
    const Tolerance gradient = global_tolerance(DType::bf16, 4 * s.seq_len * s.dim, 3);
    for (size_t i = 0; i < got.gradients.size(); ++i) {
      EXPECT_TRUE(close(got.gradients[i], expected.gradients[i], gradient));
    }
  }
}

// The plan of one scale or window is not taken for another, in one context.
TEST_P(AttentionPlanOps, PlansAreToldApart) {
  TestContext expected_context(DType::bf16), context(DType::bf16, GetParam());
  const auto outputs = [](TestContext& tc) {
    const Tensor q = tc.random({64, 2, 64}, 1), v = tc.random({64, 2, 64}, 2);
    std::vector<Tensor> results;
    for (const int64_t seq_len : {64, 32}) {
      for (const int64_t window : {0, 8}) {
        for (const double scale : {0.125, 0.05}) {
          const Tensor o = tc.empty(v.shape()), lse = tc.empty({64, 2}, tc.accumulator());
          tc->run(AttentionForward{.o = o,
                                   .lse = lse,
                                   .q = q,
                                   .k = q,
                                   .v = v,
                                   .spec = {.seq_len = seq_len, .window = window, .scale = scale}});
          results.insert(results.end(), {o, lse});
        }
      }
    }
    return results;
  };
  const std::vector<Tensor> expected = outputs(expected_context), got = outputs(context);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_TRUE(close(got[i], expected[i], tolerance(DType::bf16, 4 * 64 * 64, 2))) << i;
  }
}

}  // namespace
}  // namespace sluice::test
