// The plain kernels of CUDA with a mask of the test's own, in the emulation: this file is compiled like those it tests.
#include <gtest/gtest.h>

#include <cmath>

#include "device/cuda/attention_launch.h"
#include "support/compare.h"
#include "support/gradient_check.h"

namespace sluice::test {
namespace {

// Causal within documents, with scores bent to stay below `cap`. Its bounds are those of the whole sequence, so that
// queries meet tiles they see nothing of.
struct CappedDocuments {
  const int32_t* documents;  // of each row
  double cap;

  CappedDocuments of_sequence(int64_t first_row) const { return {documents + first_row, cap}; }
  bool visible(int64_t query, int64_t key) const { return key <= query && documents[key] == documents[query]; }
  int64_t first_key(int64_t /*query*/) const { return 0; }
  int64_t end_key(int64_t last_query) const { return last_query + 1; }
  int64_t first_query(int64_t /*key*/) const { return 0; }
  int64_t end_query(int64_t /*last_key*/, int64_t seq_len) const { return seq_len; }
  template <class A>
  A score(A scaled) const {
    return static_cast<A>(cap * std::tanh(scaled / cap));
  }
  template <class A>
  A slope(A scaled) const {
    const double bent = std::tanh(scaled / cap);
    return static_cast<A>(1 - bent * bent);
  }
};

struct Problem {
  int64_t sequences, seq_len, heads, kv_heads, dim, v_dim;
  int64_t rows() const { return sequences * seq_len; }
};

constexpr double kCap = 2;

// Documents of 1, 2, 3, ... tokens in every sequence.
std::vector<int32_t> documents_of(const Problem& p) {
  std::vector<int32_t> documents;
  for (int64_t t = 0; t < p.rows(); ++t) {
    documents.push_back(static_cast<int32_t>(std::sqrt(2 * static_cast<double>(t % p.seq_len) + 0.25) - 0.5));
  }
  return documents;
}

std::vector<double> naive(const Problem& p, double scale, const Tensor& q, const Tensor& k, const Tensor& v) {
  const std::vector<double> qs = values_of(q), ks = values_of(k), vs = values_of(v);
  const std::vector<int32_t> documents = documents_of(p);
  std::vector<double> o(static_cast<size_t>(p.rows() * p.heads * p.v_dim));
  for (int64_t pair = 0; pair < p.rows() * p.heads; ++pair) {
    const int64_t t = pair / p.heads, start = t / p.seq_len * p.seq_len,
                  kv_head = pair % p.heads * p.kv_heads / p.heads;
    double total = 0;
    for (const int64_t pass : {0, 1}) {
      for (int64_t u = start; u <= t; ++u) {
        if (documents[static_cast<size_t>(u)] != documents[static_cast<size_t>(t)]) continue;
        const int64_t kv_pair = u * p.kv_heads + kv_head;
        double product = 0;
        for (int64_t c = 0; c < p.dim; ++c) {
          product += qs[static_cast<size_t>(pair * p.dim + c)] * ks[static_cast<size_t>(kv_pair * p.dim + c)];
        }
        const double weight = std::exp(kCap * std::tanh(scale * product / kCap));
        if (pass == 0) total += weight;
        for (int64_t c = 0; pass == 1 && c < p.v_dim; ++c) {
          o[static_cast<size_t>(pair * p.v_dim + c)] += weight / total * vs[static_cast<size_t>(kv_pair * p.v_dim + c)];
        }
      }
    }
  }
  return o;
}

TEST(AttentionMasks, AreFollowedByForward) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    const Problem p{2, 150, 2, 1, 8, 16};
    TestContext tc(dtype);
    cuda::Device device(0);
    const std::vector<int32_t> documents = documents_of(p);
    const Tensor q = tc.random({p.rows(), p.heads, p.dim}, 1), k = tc.random({p.rows(), p.kv_heads, p.dim}, 2);
    const Tensor v = tc.random({p.rows(), p.kv_heads, p.v_dim}, 3), o = tc.empty({p.rows(), p.heads, p.v_dim});
    const AttentionForward op{.o = o,
                              .lse = tc.empty({p.rows(), p.heads}, tc.accumulator()),
                              .q = q,
                              .k = k,
                              .v = v,
                              .spec = {.seq_len = p.seq_len, .scale = 0.5}};
    cuda::plain_attention(device, op, {}, CappedDocuments{documents.data(), kCap});
    device.synchronize();
    EXPECT_TRUE(close(o, naive(p, 0.5, q, k, v), tolerance(dtype, 4 * p.seq_len * p.dim)));
  }
}

TEST(AttentionMasks, AreFollowedByBackward) {
  const Problem p{2, 40, 4, 2, 3, 5};
  TestContext tc(DType::f64);
  cuda::Device device(0);
  const std::vector<int32_t> documents = documents_of(p);
  const CappedDocuments mask{documents.data(), kCap};
  const Tensor q = tc.random({p.rows(), p.heads, p.dim}, 1), k = tc.random({p.rows(), p.kv_heads, p.dim}, 2);
  const Tensor v = tc.random({p.rows(), p.kv_heads, p.v_dim}, 3);
  const AttentionSpec spec{.seq_len = p.seq_len, .scale = 0.7};
  Tensor o, lse;
  check_gradients(tc,
                  {.variables = {{"q", q}, {"k", k}, {"v", v}},
                   .forward =
                       [&](Context& ctx) {
                         o = ctx.activations().empty({p.rows(), p.heads, p.v_dim}, DType::f64);
                         lse = ctx.activations().empty({p.rows(), p.heads}, DType::f64);
                         cuda::plain_attention(
                             device, AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec}, {},
                             mask);
                         device.synchronize();
                         return std::vector{o};
                       },
                   .backward =
                       [&](Context& ctx, const std::vector<Tensor>& dout) {
                         const Tensor dq = ctx.activations().empty_like(q), dk = ctx.activations().empty_like(k);
                         const Tensor dv = ctx.activations().empty_like(v);
                         const Tensor scratch = ctx.activations().empty(lse.shape(), DType::f64);
                         cuda::plain_attention(device,
                                               AttentionBackward{.dq = dq,
                                                                 .dk = dk,
                                                                 .dv = dv,
                                                                 .d_o = dout[0],
                                                                 .o = o,
                                                                 .lse = lse,
                                                                 .q = q,
                                                                 .k = k,
                                                                 .v = v,
                                                                 .spec = spec},
                                               scratch, mask);
                         device.synchronize();
                         return std::vector{dq, dk, dv};
                       }},
                  {.mutations = false});
}

}  // namespace
}  // namespace sluice::test
