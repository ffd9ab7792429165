#include "nn/grouped_query_attention.h"

#include <fmt/format.h>

#include <cmath>

namespace sluice {

std::string GroupedQueryConfig::str() const {
  std::string text = fmt::format("attention, {} heads on {}", heads, kv_heads);
  if (qk_norm) text += ", normed queries and keys";
  if (bias) text += ", biases";
  if (sinks) text += ", sinks";
  return text;
}

GroupedQueryAttention::GroupedQueryAttention(const std::string& name, const GroupedQueryConfig& config, double norm_eps,
                                             double init_std)
    : n_(config.heads),
      kv_(config.kv_heads),
      d_(config.head_dim),
      spec_{.seq_len = config.seq_len,
            .window = config.window,
            .scale = 1 / std::sqrt(static_cast<double>(config.head_dim))},
      qkv_(name + ".qkv", config.hidden, (n_ + 2 * kv_) * d_, init_std, config.bias),
      out_(name + ".out", n_ * d_, config.hidden, init_std, config.bias) {
  qkv_.weight().spec.matrices = {{"q", 0, n_ * d_}, {"k", n_ * d_, kv_ * d_}, {"v", (n_ + kv_) * d_, kv_ * d_}};
  if (config.qk_norm) {
    q_norm_.emplace(name + ".q_norm", d_, norm_eps);
    k_norm_.emplace(name + ".k_norm", d_, norm_eps);
  }
  if (config.sinks) {
    sinks_.emplace(ParamSpec{.name = name + ".sinks", .shape = {n_}, .init_std = init_std, .decay = false}, 0, 1);
  }
}

void GroupedQueryAttention::visit(const ParamVisitor& visitor) {
  qkv_.visit(visitor);
  if (q_norm_) q_norm_->visit(visitor);
  if (k_norm_) k_norm_->visit(visitor);
  if (sinks_) visitor(*sinks_);
  out_.visit(visitor);
}

void GroupedQueryAttention::norm_and_rotate(Context& ctx, const Tensor& cos_sin, Arena& arena,
                                            GroupedQuerySaved& saved) const {
  const int64_t t = saved.qkv.dim(0);
  saved.q = arena.empty({t, n_, d_}, saved.qkv.dtype());
  saved.k = arena.empty({t, kv_, d_}, saved.qkv.dtype());
  if (q_norm_) {
    q_norm_->forward(ctx, saved.q, saved.q_rstd, q_of(saved.qkv));
    k_norm_->forward(ctx, saved.k, saved.k_rstd, k_of(saved.qkv));
  } else {
    ctx.run(Copy{.y = saved.q, .x = q_of(saved.qkv)});
    ctx.run(Copy{.y = saved.k, .x = k_of(saved.qkv)});
  }
  ctx.run(Rope{.x = saved.q, .cos_sin = cos_sin});
  ctx.run(Rope{.x = saved.k, .cos_sin = cos_sin});
}

Tensor GroupedQueryAttention::forward(Context& ctx, const Tensor& x, const Tensor& cos_sin,
                                      const RecomputePolicy& recompute, GroupedQuerySaved& saved,
                                      const KvCache* cache) const {
  const NameScope scope(ctx, "attention");
  const int64_t t = x.dim(0);
  Arena& kept = ctx.activations();
  saved.x = x;
  saved.qkv = qkv_.forward(ctx, x, kept);
  if (q_norm_) {
    saved.q_rstd = kept.empty({t, n_}, ctx.accumulator());
    saved.k_rstd = kept.empty({t, kv_}, ctx.accumulator());
  }
  norm_and_rotate(ctx, cos_sin, recompute.qk_rope ? ctx.scratch() : kept, saved);
  saved.o = ctx.deferred().empty({t, n_ * d_}, x.dtype());
  saved.lse = kept.empty({t, n_}, ctx.accumulator());
  CachedKeys seen{.k = saved.k, .v = v_of(saved.qkv), .spec = spec_};
  if (cache != nullptr) seen = append(ctx, *cache, seen.k, seen.v, spec_);
  ctx.run(AttentionForward{
      .o = saved.o.view({t, n_, d_}), .lse = saved.lse, .q = saved.q, .k = seen.k, .v = seen.v, .spec = seen.spec});
  if (sinks_) {
    ctx.run(AttentionSink{.o = saved.o.view({t, n_, d_}), .lse = saved.lse, .sinks = sinks_->value});
  }
  return out_.forward(ctx, saved.o, ctx.scratch());
}

void GroupedQueryAttention::rebuild(Context& ctx, const Tensor& cos_sin, const RecomputePolicy& recompute,
                                    GroupedQuerySaved& saved) const {
  const NameScope scope(ctx, "attention");
  if (recompute.qk_rope) norm_and_rotate(ctx, cos_sin, ctx.scratch(), saved);
}

void GroupedQueryAttention::backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin,
                                     GroupedQuerySaved& saved) const {
  const NameScope scope(ctx, "attention");
  const int64_t t = dy.dim(0);
  Arena& scratch = ctx.scratch();
  saved.dy = dy;
  Tensor d_o = scratch.empty_like(saved.o);
  out_.input_grad(ctx, d_o, dy);
  if (sinks_) {
    ctx.run(AttentionSinkBackward{.dsinks = sinks_->grad,
                                  .d_o = d_o.view({t, n_, d_}),
                                  .o = saved.o.view({t, n_, d_}),
                                  .lse = saved.lse,
                                  .sinks = sinks_->value});
  }
  saved.dqkv = ctx.deferred().empty_like(saved.qkv);
  Tensor dq = scratch.empty_like(saved.q);
  Tensor dk = scratch.empty_like(saved.k);
  ctx.run(AttentionBackward{.dq = dq,
                            .dk = dk,
                            .dv = v_of(saved.dqkv),
                            .d_o = d_o.view({t, n_, d_}),
                            .o = saved.o.view({t, n_, d_}),
                            .lse = saved.lse,
                            .q = saved.q,
                            .k = saved.k,
                            .v = v_of(saved.qkv),
                            .spec = spec_});
  ctx.run(Rope{.x = dq, .cos_sin = cos_sin, .inverse = true});
  ctx.run(Rope{.x = dk, .cos_sin = cos_sin, .inverse = true});
  if (q_norm_) {
    q_norm_->backward(ctx, q_of(saved.dqkv), dq, q_of(saved.qkv), saved.q_rstd);
    k_norm_->backward(ctx, k_of(saved.dqkv), dk, k_of(saved.qkv), saved.k_rstd);
  } else {
    ctx.run(Copy{.y = q_of(saved.dqkv), .x = dq});
    ctx.run(Copy{.y = k_of(saved.dqkv), .x = dk});
  }
  qkv_.input_grad(ctx, dx, saved.dqkv);
}

void GroupedQueryAttention::weight_grad(Context& ctx, const GroupedQuerySaved& saved) const {
  const NameScope scope(ctx, "attention");
  out_.weight_grad(ctx, saved.o, saved.dy);
  qkv_.weight_grad(ctx, saved.x, saved.dqkv);
}

}  // namespace sluice
