#include "block_rig.h"

namespace sluice::test {

namespace {

constexpr int64_t kSeqLen = 3, kSequences = 2, kHidden = 5, kExperts = 4, kTopK = 2;

AttentionConfig attention_of(const BlockKind& kind) {
  if (kind.latent) {
    return LatentConfig{.hidden = kHidden,
                        .heads = 2,
                        .q_lora = 3,
                        .kv_lora = 4,
                        .nope_dim = 3,
                        .rope_dim = 2,
                        .v_dim = 3,
                        .seq_len = kSeqLen,
                        .scale_factor = 1.2};
  }
  return GroupedQueryConfig{.hidden = kHidden,
                            .heads = 4,
                            .kv_heads = 2,
                            .head_dim = 2,
                            .seq_len = kSeqLen,
                            .window = kind.biases ? 2 : 0,
                            .qk_norm = !kind.biases,
                            .bias = kind.biases,
                            .sinks = kind.biases};
}

BlockConfig config_of(const BlockKind& kind) {
  BlockConfig config{
      .attention = attention_of(kind),
      .moe = {.hidden = kHidden,
              .ffn = 3,
              .num_experts = kind.router ? kExperts : 0,
              .top_k = kTopK,
              .seq_len = kSeqLen,
              .router = kind.router.value_or(RouterKind::forced),
              .gate = {.kind = GateKind::published, .num_experts = kExperts, .top_k = kTopK, .noise = 0.5, .seed = 5}},
      .mlp_ffn = kind.mlp_ffn,
      .norm_eps = 1e-3};
  config.moe.sigmoid = {.groups = 2, .top_groups = 1, .scale = 1.5};
  if (kind.biases) {
    config.moe.router_bias = config.moe.expert_bias = true;
    config.moe.gate_form = {.limit = 0.5, .alpha = 1.702};
  }
  return config;
}

// What was given back holds NaN from here on.
void poison_free(Arena& arena) {
  constexpr int64_t kBytes = 1 << 16;
  EXPECT_LE(arena.in_use() + kBytes, size_t{1} << 20) << "the arena would grow";
  const ArenaScope scope(arena);
  poison(arena.empty({1, kBytes}, DType::u8));
}

}  // namespace

BlockRig::BlockRig(TestContext& tc, const BlockKind& kind)
    : tc_(tc),
      memory_(tc.more_memory()),
      ep_(world_.communicator(0)),
      config_(config_of(kind)),
      block_("block", config_, *ep_),
      variables_(bind_parameters(tc, block_)) {
  x_ = tc.random({kSequences * kSeqLen, kHidden}, 1);
  y_ = tc.empty(x_.shape());
  dx_ = tc.empty(x_.shape());
  variables_.push_back({"x", x_});
  input_.cos_sin = tc.empty({kSeqLen, config_.sizes().rope_dim}, tc.accumulator());
  tc->run(RopeTable{.cos_sin = input_.cos_sin, .theta = 100});
  input_.sample_ids = tc.of({kSequences}, DType::i64, {3, 8});
  draw_input();
}

void BlockRig::draw_input() {
  if (config_.moe.num_experts == 0 || config_.moe.router == RouterKind::forced) return;
  Tensor selection_bias;
  block_.visit([&](Param& param) {
    if (param.spec.balanced_top_k > 0) selection_bias = param.value;
  });
  draw_routed(tc_, x_, kTopK, [&] {
    forward(*tc_, {}, false);
    const Tensor& scores = saved_.moe.router.probs;
    return selection_bias ? choices_of(tc_, scores, selection_bias) : scores;
  });
}

Program BlockRig::program(const RecomputePolicy& recompute, bool defer) {
  return {.variables = variables_,
          .forward = [=, this](Context& ctx) { return forward(ctx, recompute, defer); },
          .backward = [=, this](Context& ctx,
                                const std::vector<Tensor>& dout) { return backward(ctx, dout[0], recompute, defer); },
          .output_gradient = {}};
}

std::vector<Tensor> BlockRig::forward(Context& ctx, const RecomputePolicy& recompute, bool defer) {
  for (Arena* arena : {&activations_, &deferred_, &scratch_}) arena->release_all();
  saved_ = {};
  if (recompute.full) {
    ctx.bind({&scratch_, &scratch_, &activations_, &scratch_});
  } else {
    ctx.bind({&activations_, defer ? &deferred_ : &activations_, &activations_, &scratch_});
  }
  {
    const ArenaScope scope(scratch_);
    block_.forward(ctx, y_, x_, input_, recompute, saved_);
  }
  poison_free(scratch_);
  ctx.bind({&activations_, &activations_, &activations_, &scratch_});  // for the output's gradient
  return {y_};
}

std::vector<Tensor> BlockRig::backward(Context& ctx, const Tensor& dy, const RecomputePolicy& recompute, bool defer) {
  ctx.bind({&scratch_, defer ? &deferred_ : &scratch_, &activations_, &scratch_});
  {
    const ArenaScope scope(scratch_);
    block_.rebuild(ctx, input_, recompute, saved_);
    block_.backward(ctx, dx_, dy, input_, saved_);
    if (!defer) block_.weight_grad(ctx, saved_);
  }
  if (defer) {
    activations_.release_all();
    poison_free(scratch_);
    poison_free(activations_);
    ctx.bind({&scratch_, &deferred_, &scratch_, &scratch_});
    block_.weight_grad(ctx, saved_);
  }
  return {dx_};
}

}  // namespace sluice::test
