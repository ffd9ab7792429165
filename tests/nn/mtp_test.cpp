#include "nn/mtp.h"

#include <gtest/gtest.h>

#include "comm/inproc/inproc.h"
#include "module.h"

namespace sluice::test {
namespace {

constexpr int64_t kSeqLen = 3, kTokens = 2 * kSeqLen, kHidden = 5, kVocab = 6;
constexpr double kScale = 0.37, kEps = 1e-3;

BlockConfig dense_block() {
  return {
      .attention = GroupedQueryConfig{.hidden = kHidden, .heads = 2, .kv_heads = 1, .head_dim = 2, .seq_len = kSeqLen},
      .mlp_ffn = 3,
      .norm_eps = kEps};
}

// The extra layer with a dense block, its inputs and the head it shares.
class MtpRig {
 public:
  explicit MtpRig(TestContext& tc)
      : tc_(tc),
        ep_(world_.communicator(0)),
        mtp("layers.7", dense_block(), *ep_),
        head(kVocab, kHidden, kEps, 0.02),
        variables(bind_parameters(tc, mtp)) {
    head_variables_ = bind_parameters(tc, head, 900);
    for (const Variable& v : head_variables_) {
      if (v.name == "head.weight") variables.push_back(v);
    }
    embedded = tc.random({kTokens, kHidden}, 1);
    hidden = tc.random({kTokens, kHidden}, 2);
    variables.push_back({"embedded", embedded});
    variables.push_back({"hidden", hidden});
    labels_ = tc.ints({kTokens}, {2, 1, kIgnoredLabel, 0, 5, kIgnoredLabel});
    scale_ = tc.of({1}, DType::f64, {kScale});
    input_.cos_sin = tc.empty({kSeqLen, 2}, tc.accumulator());
    tc->run(RopeTable{.cos_sin = input_.cos_sin, .theta = 100});
    input_.sample_ids = tc.of({2}, DType::i64, {3, 8});
  }

  Tensor forward(Context& ctx, const RecomputePolicy& recompute) {
    saved = {};
    saved.embedded = embedded;
    saved.hidden = hidden;
    const Tensor loss = ctx.activations().empty({kTokens}, DType::f64);
    mtp.forward(ctx, loss, labels_, scale_, head, input_, recompute, saved);
    return loss;
  }

  std::vector<Tensor> backward(Context& ctx, const RecomputePolicy& recompute) {
    const Tensor dembedded = ctx.activations().empty_like(embedded), dhidden = ctx.activations().empty_like(hidden);
    mtp.backward(ctx, dembedded, dhidden, input_, recompute, saved);
    mtp.weight_grad(ctx, saved);
    return {dembedded, dhidden};
  }

 private:
  TestContext& tc_;
  InprocWorld world_{1};
  std::unique_ptr<Communicator> ep_;
  std::vector<Variable> head_variables_;
  Tensor labels_;
  Tensor scale_;
  BlockInput input_;

 public:
  Mtp mtp;
  Head head;
  std::vector<Variable> variables;
  Tensor embedded;
  Tensor hidden;
  MtpSaved saved;
};

void expect_sound(const RecomputePolicy& recompute) {
  TestContext tc(DType::f64);
  MtpRig rig(tc);
  Program program{.variables = rig.variables};
  program.forward = [&](Context& ctx) { return std::vector{rig.forward(ctx, recompute)}; };
  program.backward = [&](Context& ctx, const std::vector<Tensor>&) { return rig.backward(ctx, recompute); };
  program.output_gradient = [&](size_t, const Shape& shape) {
    return std::vector<double>(static_cast<size_t>(shape.numel()), kScale);
  };
  const MutationReport report = check_gradients(tc, program);
  EXPECT_GT(report.ops, 20);
  // The norms of both halves are made again in the backward.
  std::vector<Unused> known = unused_when_rebuilding();
  expect_known(report, known);
}

TEST(MtpModule, Gradients) {
  expect_sound({});
}

TEST(MtpModule, GradientsWhenRebuilt) {
  expect_sound(RecomputePolicy::selective());
}

// z = P [norm(embedded) | norm(hidden)], by plain loops; the other way round is something else.
TEST(MtpModule, TheEmbeddingIsTheFirstHalf) {
  TestContext tc(DType::f64);
  MtpRig rig(tc);
  rig.forward(*tc, {});
  std::map<std::string, std::vector<double>> weights;
  rig.mtp.visit([&](Param& param) { weights[param.spec.name] = values_of(param.value); });
  const std::vector<double>& projection = weights.at("layers.7.eh_proj.weight");
  const auto normed = [&](const Tensor& x, const std::string& gamma) {
    std::vector<double> y = values_of(x);
    for (int64_t t = 0; t < kTokens; ++t) {
      double squares = 0;
      for (int64_t d = 0; d < kHidden; ++d) squares += y[t * kHidden + d] * y[t * kHidden + d];
      const double rstd = 1 / std::sqrt(squares / kHidden + kEps);
      for (int64_t d = 0; d < kHidden; ++d) y[t * kHidden + d] *= rstd * weights.at(gamma)[d];
    }
    return y;
  };
  const std::vector<double> left = normed(rig.embedded, "layers.7.enorm.gamma");
  const std::vector<double> right = normed(rig.hidden, "layers.7.hnorm.gamma");
  const std::vector<double> z = values_of(rig.saved.z);
  double error = 0, swapped_error = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < kHidden; ++i) {
      double sum = 0, swapped = 0;
      for (int64_t d = 0; d < kHidden; ++d) {
        const double first = projection[i * 2 * kHidden + d], second = projection[i * 2 * kHidden + kHidden + d];
        sum += first * left[t * kHidden + d] + second * right[t * kHidden + d];
        swapped += second * left[t * kHidden + d] + first * right[t * kHidden + d];
      }
      error = std::max(error, std::abs(z[t * kHidden + i] - sum));
      swapped_error = std::max(swapped_error, std::abs(z[t * kHidden + i] - swapped));
    }
  }
  EXPECT_LE(error, 1e-12);
  EXPECT_GT(swapped_error, 0.1);
}

}  // namespace
}  // namespace sluice::test
