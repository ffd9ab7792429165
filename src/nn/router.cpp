#include "nn/router.h"

namespace sluice {

Router::Router(const std::string& name, const MoeConfig& config, double init_std) : config_(config) {
  if (config.router == RouterKind::softmax_topk) {
    linear_.emplace(name, config.hidden, config.num_experts, init_std);
  }
}

void Router::visit(const ParamVisitor& visitor) {
  if (linear_) linear_->visit(visitor);
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
  const Tensor logits = ctx.scratch().empty(saved.probs.shape(), ctx.accumulator());
  linear_->forward(ctx, logits, x);
  ctx.run(
      SoftmaxTopKForward{.experts = record.experts, .weights = record.weights, .probs = saved.probs, .logits = logits});
}

void Router::backward(Context& ctx, const Tensor& dx, const Tensor& dweights, const RoutingRecord& record,
                      RouterSaved& saved) const {
  if (!linear_) return;
  const NameScope scope(ctx, "router");
  saved.dlogits = ctx.deferred().empty_like(saved.probs);
  ctx.run(SoftmaxTopKBackward{.dlogits = saved.dlogits,
                              .dweights = dweights,
                              .experts = record.experts,
                              .weights = record.weights,
                              .probs = saved.probs});
  linear_->input_grad(ctx, dx, saved.dlogits, /*accumulate=*/true);
}

void Router::weight_grad(Context& ctx, const RouterSaved& saved) const {
  if (!linear_) return;
  const NameScope scope(ctx, "router");
  linear_->weight_grad(ctx, saved.x, saved.dlogits);
}

}  // namespace sluice
