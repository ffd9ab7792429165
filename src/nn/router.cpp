#include "nn/router.h"

namespace sluice {

Router::Router(const std::string& name, const MoeConfig& config, double init_std) : config_(config) {
  const bool sigmoid = config.router == RouterKind::sigmoid_topk;
  if (config.router == RouterKind::forced) return;
  linear_.emplace(name, config.hidden, config.num_experts, init_std, config.router_bias);
  const auto counted = [&](const char* what, bool holds_shares) {
    return ParamSpec{.name = name + what,
                     .shape = {config.num_experts},
                     .init = InitKind::zeros,
                     .decay = false,
                     .balanced_top_k = config.top_k,
                     .holds_shares = holds_shares};
  };
  if (sigmoid) selection_bias_.emplace(counted(".selection_bias", false), 0, 1);
  // Zeros are a loss without gradient, as equal shares would be.
  const bool global = config.aux_loss_coef > 0 && config.balance_over() == BalanceOver::global_batch;
  if (global) load_share_.emplace(counted(".load_share", true), 0, 1);
}

void Router::visit(const ParamVisitor& visitor) {
  if (linear_) linear_->visit(visitor);
  if (selection_bias_) visitor(*selection_bias_);
  if (load_share_) visitor(*load_share_);
}

void Router::forward(Context& ctx, const Tensor& x, const Tensor& sample_ids, RoutingRecord& record,
                     RouterSaved& saved) const {
  const NameScope scope(ctx, "router");
  const int64_t t = x.dim(0);
  Arena& kept = ctx.records();
  record.experts = kept.empty({t, config_.top_k}, DType::i32);
  record.weights = kept.empty({t, config_.top_k}, ctx.accumulator());
  if (!linear_) {
    ctx.run(ForcedGate{.experts = record.experts,
                       .weights = record.weights,
                       .sample_ids = sample_ids,
                       .seq_len = config_.seq_len,
                       .gate = config_.gate});
    return;
  }
  saved.x = x;
  saved.probs = kept.empty({t, config_.num_experts}, ctx.accumulator());
  const bool z_loss = config_.router_z_coef > 0;
  const Tensor logits = (z_loss ? kept : ctx.scratch()).empty(saved.probs.shape(), ctx.accumulator());
  if (z_loss) saved.logits = logits;
  linear_->forward(ctx, logits, x);
  if (selection_bias_) {
    ctx.run(SigmoidTopKForward{.experts = record.experts,
                               .weights = record.weights,
                               .scores = saved.probs,
                               .logits = logits,
                               .bias = selection_bias_->value,
                               .spec = config_.sigmoid});
    return;
  }
  ctx.run(SoftmaxTopKForward{.experts = record.experts,
                             .weights = record.weights,
                             .probs = saved.probs,
                             .logits = logits,
                             .renormalize = config_.renormalize});
}

void Router::add_balance_loss(Context& ctx, const RoutingRecord& record, const RouterSaved& saved,
                              const Tensor& grad_scale) const {
  Arena& scratch = ctx.scratch();
  const ArenaScope scope(scratch);
  const bool sigmoid = selection_bias_.has_value();
  Tensor experts = record.experts;
  if (sigmoid) {
    // What would be chosen without groups and bias: the largest scores are those of the largest softmax of scores.
    experts = scratch.empty(record.experts.shape(), DType::i32);
    const Tensor weights = scratch.empty(experts.shape(), ctx.accumulator());
    const Tensor probs = scratch.empty_like(saved.probs);
    ctx.run(SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = saved.probs});
  }
  BalanceLossBackward loss{.dlogits = saved.dlogits,
                           .probs = saved.probs,
                           .load = {},
                           .grad_scale = grad_scale,
                           .slots = 1,
                           .coef = config_.aux_loss_coef,
                           .sigmoid = sigmoid};
  if (load_share_) {
    ctx.run(ExpertLoad{.load = load_share_->grad, .experts = experts});
    loss.load = load_share_->value.view({1, config_.num_experts});
  } else {
    const int64_t t = saved.probs.dim(0);
    const int64_t run_tokens = config_.balance_over() == BalanceOver::sequence ? config_.seq_len : t;
    loss.slots = config_.top_k * run_tokens;
    loss.load = scratch.empty({t / run_tokens, config_.num_experts}, ctx.accumulator());
    ctx.run(Fill{.x = loss.load, .value = 0});
    for (int64_t run = 0; run < t / run_tokens; ++run) {
      ctx.run(ExpertLoad{.load = loss.load.rows(run, 1).view({config_.num_experts}),
                         .experts = experts.rows(run * run_tokens, run_tokens)});
    }
  }
  ctx.run(loss);
}

void Router::backward(Context& ctx, const Tensor& dx, const Tensor& dweights, const RoutingRecord& record,
                      RouterSaved& saved, const Tensor& grad_scale) const {
  if (!linear_) return;
  const NameScope scope(ctx, "router");
  saved.dlogits = ctx.deferred().empty_like(saved.probs);
  if (selection_bias_) {
    ctx.run(SigmoidTopKBackward{.dlogits = saved.dlogits,
                                .dweights = dweights,
                                .experts = record.experts,
                                .weights = record.weights,
                                .scores = saved.probs,
                                .spec = config_.sigmoid});
    ctx.run(ExpertLoad{.load = selection_bias_->grad, .experts = record.experts});
  } else {
    ctx.run(SoftmaxTopKBackward{.dlogits = saved.dlogits,
                                .dweights = dweights,
                                .experts = record.experts,
                                .weights = record.weights,
                                .probs = saved.probs,
                                .renormalize = config_.renormalize});
  }
  if (config_.aux_loss_coef > 0) add_balance_loss(ctx, record, saved, grad_scale);
  if (saved.logits) {
    ctx.run(RouterZBackward{
        .dlogits = saved.dlogits, .logits = saved.logits, .grad_scale = grad_scale, .coef = config_.router_z_coef});
  }
  linear_->input_grad(ctx, dx, saved.dlogits, /*accumulate=*/true);
}

void Router::weight_grad(Context& ctx, const RouterSaved& saved) const {
  if (!linear_) return;
  const NameScope scope(ctx, "router");
  linear_->weight_grad(ctx, saved.x, saved.dlogits);
}

}  // namespace sluice
