#include "nn/mlp.h"

namespace sluice {

Mlp::Mlp(const std::string& name, int64_t hidden, int64_t ffn, double init_std)
    : ffn_(ffn), gate_up_(name + ".gate_up", hidden, 2 * ffn, init_std), down_(name + ".down", ffn, hidden, init_std) {
  gate_up_.weight().spec.matrices = {{"gate", 0, ffn}, {"up", ffn, ffn}};
}

void Mlp::activate(Context& ctx, Arena& arena, MlpSaved& saved) const {
  saved.h = arena.empty({saved.gate_up.dim(0), ffn_}, saved.gate_up.dtype());
  ctx.run(SwigluForward{.h = saved.h, .gate_up = saved.gate_up});
}

void Mlp::forward(Context& ctx, const Tensor& y, const Tensor& x, const RecomputePolicy& recompute,
                  MlpSaved& saved) const {
  const NameScope scope(ctx, "mlp");
  saved.x = x;
  saved.gate_up = gate_up_.forward(ctx, x, recompute.experts ? ctx.scratch() : ctx.activations());
  activate(ctx, recompute.act || recompute.experts ? ctx.scratch() : ctx.deferred(), saved);
  down_.forward(ctx, y, saved.h, true);
}

void Mlp::rebuild(Context& ctx, const RecomputePolicy& recompute, MlpSaved& saved) const {
  const NameScope scope(ctx, "mlp");
  if (recompute.experts) saved.gate_up = gate_up_.forward(ctx, saved.x, ctx.scratch());
  if (recompute.act || recompute.experts) activate(ctx, ctx.deferred(), saved);
}

void Mlp::backward(Context& ctx, const Tensor& dx, const Tensor& dy, bool accumulate, MlpSaved& saved) const {
  const NameScope scope(ctx, "mlp");
  // The caller's buffer is written again before a delayed weight gradient.
  saved.dy = ctx.deferred().empty_like(dy);
  ctx.run(Copy{.y = saved.dy, .x = dy});
  Tensor dh = ctx.scratch().empty_like(saved.h);
  down_.input_grad(ctx, dh, dy);
  saved.dgate_up = ctx.deferred().empty_like(saved.gate_up);
  ctx.run(SwigluBackward{.dgate_up = saved.dgate_up, .dh = dh, .gate_up = saved.gate_up});
  gate_up_.input_grad(ctx, dx, saved.dgate_up, accumulate);
}

void Mlp::weight_grad(Context& ctx, const MlpSaved& saved) const {
  const NameScope scope(ctx, "mlp");
  down_.weight_grad(ctx, saved.h, saved.dy);
  gate_up_.weight_grad(ctx, saved.x, saved.dgate_up);
}

}  // namespace sluice
