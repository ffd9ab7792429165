#include "nn/moe.h"

namespace sluice {

Moe::Moe(const std::string& name, const MoeConfig& config, Communicator& ep, double init_std)
    : router_(name + ".router", config, init_std),
      dispatcher_(ep, config.stored_experts(), config.local_shard > 1),
      experts_(name + ".experts", config, ep.rank(), ep.size(), init_std) {}

void Moe::visit(const ParamVisitor& visitor) {
  router_.visit(visitor);
  experts_.visit(visitor);
}

void Moe::route(Context& ctx, const Tensor& x, const Tensor& sample_ids, MoeSaved& saved, const LoadForecast& forecast,
                const Tensor& load) const {
  saved.x = x;
  router_.forward(ctx, x, sample_ids, saved.record, saved.router);
  if (load) ctx.run(ExpertLoad{.load = load, .experts = saved.record.experts});
  dispatcher_.plan(ctx, saved.record, forecast);
}

void Moe::dispatch(Context& ctx, MoeSaved& saved) const {
  saved.transfer = dispatcher_.begin_to_experts(ctx, saved.x, saved.record);
}

void Moe::compute(Context& ctx, const RecomputePolicy& recompute, MoeSaved& saved) const {
  Arena& arena = recompute.dispatch ? ctx.scratch() : ctx.deferred();
  const Tensor x = dispatcher_.end_to_experts(ctx, saved.transfer, saved.record, arena);
  saved.rows = experts_.forward(ctx, x, saved.record, recompute, saved.experts);
  saved.transfer = dispatcher_.begin_from_experts(ctx, saved.rows, saved.record);
}

void Moe::combine(Context& ctx, const Tensor& out, const Tensor& add, MoeSaved& saved) const {
  dispatcher_.end_from_experts(ctx, saved.transfer, saved.record, out, add);
}

void Moe::rebuild(Context& ctx, const RecomputePolicy& recompute, MoeSaved& saved) const {
  if (recompute.dispatch) {
    Dispatcher::Transfer transfer = dispatcher_.begin_to_experts(ctx, saved.x, saved.record);
    saved.experts.x = dispatcher_.end_to_experts(ctx, transfer, saved.record, ctx.deferred());
  }
  experts_.rebuild(ctx, saved.record, recompute, saved.experts);
}

void Moe::combine_backward(Context& ctx, const Tensor& dy, MoeSaved& saved) const {
  saved.transfer = dispatcher_.begin_to_experts(ctx, dy, saved.record);
}

void Moe::compute_backward(Context& ctx, MoeSaved& saved) const {
  const Tensor dy = dispatcher_.end_to_experts(ctx, saved.transfer, saved.record, ctx.deferred());
  saved.rows = experts_.backward(ctx, dy, saved.record, saved.experts, saved.drow);
}

void Moe::dispatch_backward(Context& ctx, MoeSaved& saved) const {
  saved.transfer = dispatcher_.begin_from_experts(ctx, saved.rows, saved.record);
}

void Moe::route_backward(Context& ctx, const Tensor& dx, MoeSaved& saved, const Tensor& grad_scale) const {
  dispatcher_.end_from_experts(ctx, saved.transfer, saved.record, dx, Tensor());
  if (!router_.learned()) return;
  const Tensor dweights = dispatcher_.weight_gradients(ctx, saved.drow, saved.record);
  router_.backward(ctx, dx, dweights, saved.record, saved.router, grad_scale);
}

void Moe::weight_grad(Context& ctx, const MoeSaved& saved) const {
  router_.weight_grad(ctx, saved.router);
  experts_.weight_grad(ctx, saved.experts);
}

}  // namespace sluice
