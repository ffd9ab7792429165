#include "device/cpu_cases.h"

#include <fmt/core.h>

namespace sluice::test {

namespace {

CpuCase bias(int64_t width, bool weighted) {
  return {fmt::format("bias_{}{}", width, weighted ? "_weighted" : ""), 700, [=](TestContext& tc) {
            const int64_t rows = 700;
            const Tensor y = strided_random(tc, {rows, width}, 1), dy = strided_random(tc, {rows, width}, 2);
            const Tensor b = tc.random({1, width}, 3), db = tc.random_as(tc.accumulator(), {1, width}, 4);
            const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {rows}, 5) : Tensor();
            tc->run(AddBias{.y = y, .b = b, .weight = weight});
            tc->run(BiasBackward{.db = db, .dy = dy, .weight = weight});
            return std::vector{y, db};
          }};
}

// Experts without rows at the ends and in between, rows of no expert, segments across the cuts.
CpuCase expert_bias(int64_t width, bool weighted) {
  return {fmt::format("expert_bias_{}{}", width, weighted ? "_weighted" : ""), 700, [=](TestContext& tc) {
            const int64_t rows = 700, experts = 6;
            const Tensor offsets = tc.ints({7}, {5, 5, 131, 131, 132, 690, 690});
            const Tensor y = strided_random(tc, {rows, width}, 1), dy = strided_random(tc, {rows, width}, 2);
            const Tensor b = tc.random({experts, width}, 3);
            const Tensor db = tc.random_as(tc.accumulator(), {experts, width}, 4);
            const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {rows}, 5) : Tensor();
            const Tensor dweight = tc.random_as(tc.accumulator(), {rows}, 6);
            tc->run(AddBias{.y = y, .b = b, .offsets = offsets, .weight = weight});
            tc->run(BiasBackward{.db = db, .dweight = dweight, .dy = dy, .b = b, .offsets = offsets, .weight = weight});
            return std::vector{y, db, dweight};
          }};
}

CpuCase sink(int64_t tokens, int64_t heads, int64_t dim) {
  return {fmt::format("attention_sink_{}_{}_{}", tokens, heads, dim), tokens + dim, [=](TestContext& tc) {
            const Shape shape{tokens, heads, dim};
            const Tensor o = strided_random(tc, shape, 1), d_o = strided_random(tc, shape, 2);
            const Tensor sinks = tc.random({heads}, 3, 4), dsinks = tc.random_as(tc.accumulator(), {heads}, 4);
            const Tensor lse = tc.random_as(tc.accumulator(), {tokens, heads}, 5, 4);
            const Tensor corrected = strided_random(tc, shape, 6);
            tc->run(AttentionSink{.o = o, .lse = lse, .sinks = sinks});
            tc->run(AttentionSinkBackward{.dsinks = dsinks, .d_o = d_o, .o = corrected, .lse = lse, .sinks = sinks});
            return std::vector{o, lse, dsinks};
          }};
}

// `nope`, `rotary` and `value` columns of a head.
CpuCase mla(int64_t heads, int64_t nope, int64_t rotary, int64_t value) {
  return {fmt::format("mla_{}_{}_{}_{}", heads, nope, rotary, value), heads, [=](TestContext& tc) {
            const int64_t tokens = 90, positions = 45;
            const Tensor cos_sin = tc.empty({positions, rotary}, tc.accumulator());
            tc->run(RopeTable{.cos_sin = cos_sin, .theta = 1e4});
            const Tensor q = strided_random(tc, {tokens, heads, nope + rotary}, 1);
            const Tensor kv = strided_random(tc, {tokens, heads, nope + value}, 2);
            const Tensor k_pe = strided_random(tc, {tokens, rotary}, 3);
            const Tensor k = tc.strided({tokens, heads, nope + rotary}, tc.dtype());
            const Tensor v = tc.strided({tokens, heads, value}, tc.dtype());
            tc->run(MlaHeads{.q = q, .k = k, .v = v, .kv = kv, .k_pe = k_pe, .cos_sin = cos_sin});
            const Tensor dq = strided_random(tc, q.shape(), 4), dk = strided_random(tc, k.shape(), 5);
            const Tensor dv = strided_random(tc, v.shape(), 6), dkv = tc.strided(kv.shape(), tc.dtype());
            const Tensor dk_pe = tc.strided(k_pe.shape(), tc.dtype());
            tc->run(MlaHeadsBackward{.dq = dq, .dkv = dkv, .dk_pe = dk_pe, .dk = dk, .dv = dv, .cos_sin = cos_sin});
            return std::vector{q, k, v, dq, dkv, dk_pe};
          }};
}

CpuCase router(int64_t num_experts, int64_t top_k) {
  return {fmt::format("router_{}_{}", num_experts, top_k), num_experts, [=](TestContext& tc) {
            const int64_t tokens = 600;
            const Tensor logits = tc.random({tokens, num_experts}, 1, 3);
            for (int64_t e = 0; e < num_experts; ++e) logits.data<float>()[5 * num_experts + e] = 0.5F;  // all tie
            const Tensor experts = tc.empty({tokens, top_k}, DType::i32), weights = tc.empty({tokens, top_k});
            const Tensor probs = tc.empty({tokens, num_experts}), dlogits = tc.empty({tokens, num_experts});
            tc->run(SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = logits});
            tc->run(SoftmaxTopKBackward{.dlogits = dlogits,
                                        .dweights = tc.random({tokens, top_k}, 2),
                                        .experts = experts,
                                        .weights = weights,
                                        .probs = probs});
            tc->run(RouterZBackward{
                .dlogits = dlogits, .logits = logits, .grad_scale = tc.of({1}, DType::f64, {0.7}), .coef = 0.1});
            return std::vector{experts, weights, probs, dlogits};
          }};
}

CpuCase sigmoid_router(int64_t num_experts, int64_t top_k, const SigmoidRouterSpec& spec) {
  const auto name = fmt::format("sigmoid_router_{}_{}_{}_{}{}", num_experts, top_k, spec.groups, spec.top_groups,
                                spec.normalize ? "" : "_plain");
  return {
      name, top_k + 4, [=](TestContext& tc) {
        const int64_t tokens = 300;
        const Tensor logits = strided_random(tc, {tokens, num_experts}, 1, 2);
        const Tensor bias = tc.random({num_experts}, 2, 0.3);
        // One token whose experts all tie, and groups with them.
        for (int64_t e = 0; e < num_experts; ++e) logits.data<float>()[5 * logits.stride() + e] = 0.5F;
        bias.data<float>()[0] = bias.data<float>()[num_experts - 1];
        const Tensor experts = tc.empty({tokens, top_k}, DType::i32);
        const Tensor weights = tc.strided({tokens, top_k}, tc.dtype());
        const Tensor scores = tc.strided(logits.shape(), tc.dtype());
        const Tensor dlogits = tc.strided(logits.shape(), tc.dtype());
        tc->run(SigmoidTopKForward{
            .experts = experts, .weights = weights, .scores = scores, .logits = logits, .bias = bias, .spec = spec});
        tc->run(SigmoidTopKBackward{.dlogits = dlogits,
                                    .dweights = strided_random(tc, {tokens, top_k}, 3),
                                    .experts = experts,
                                    .weights = weights,
                                    .scores = scores,
                                    .spec = spec});
        return std::vector{experts, weights, scores, dlogits};
      }};
}

// Logits and biases that are whole halves: every group and every choice ties with others.
CpuCase tied_router() {
  return {"sigmoid_router_ties", 8, [](TestContext& tc) {
            const int64_t tokens = 40, num_experts = 32, top_k = 6;
            const Tensor logits = tc.empty({tokens, num_experts}), bias = tc.empty({num_experts});
            tc->run(Fill{.x = bias, .value = -1.5});  // choices below zero still beat groups that are out
            for (int64_t i = 0; i < logits.numel(); ++i) logits.data<float>()[i] = static_cast<float>(i * i % 5) / 2;
            const Tensor experts = tc.empty({tokens, top_k}, DType::i32), weights = tc.empty({tokens, top_k});
            const Tensor scores = tc.empty(logits.shape());
            tc->run(SigmoidTopKForward{.experts = experts,
                                       .weights = weights,
                                       .scores = scores,
                                       .logits = logits,
                                       .bias = bias,
                                       .spec = {.groups = 8, .top_groups = 3, .scale = 2.5}});
            return std::vector{experts, weights, scores};
          }};
}

}  // namespace

std::vector<CpuCase> bias_and_head_cases() {
  std::vector<CpuCase> all;
  for (const int64_t width : {1, 31, 300}) {
    for (const bool weighted : {false, true}) {
      all.push_back(bias(width, weighted));
      all.push_back(expert_bias(width, weighted));
    }
  }
  all.push_back(sink(1, 1, 5));
  all.push_back(sink(200, 3, 64));
  all.push_back(sink(64, 2, 17));
  all.push_back(mla(1, 0, 2, 1));
  all.push_back(mla(3, 5, 6, 7));
  all.push_back(mla(4, 32, 16, 40));
  all.push_back(mla(2, 4, 300, 8));  // more than the fast path takes
  return all;
}

std::vector<CpuCase> router_cases() {
  std::vector<CpuCase> all;
  all.push_back(router(16, 4));
  all.push_back(router(5, 5));
  all.push_back(router(60, 8));
  all.push_back(sigmoid_router(16, 4, {.groups = 4, .top_groups = 2}));
  all.push_back(sigmoid_router(37, 8, {.scale = 2.5}));
  all.push_back(sigmoid_router(5, 3, {.groups = 5, .top_groups = 3, .normalize = false, .scale = 1.7}));
  all.push_back(tied_router());
  return all;
}

}  // namespace sluice::test
