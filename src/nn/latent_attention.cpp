#include "nn/latent_attention.h"

#include <fmt/format.h>

#include <cmath>

namespace sluice {

std::string LatentConfig::str() const {
  return fmt::format("latent attention, {} heads{}", heads, q_lora > 0 ? ", query latent" : "");
}

LatentAttention::LatentAttention(const std::string& name, const LatentConfig& config, double /*norm_eps*/,
                                 double init_std)
    : config_(config),
      spec_{.seq_len = config.seq_len, .scale = config.scale_factor / std::sqrt(static_cast<double>(config.qk_dim()))},
      down_(name + ".down", config.hidden, query_cols() + config.kv_lora + config.rope_dim, init_std),
      kv_norm_(name + ".kv_norm", config.kv_lora, config.latent_eps),
      kv_up_(name + ".kv_up", config.kv_lora, config.heads * (config.nope_dim + config.v_dim), init_std),
      out_(name + ".out", config.heads * config.v_dim, config.hidden, init_std) {
  down_.weight().spec.matrices = {{"q", 0, query_cols()}, {"kv", query_cols(), config.kv_lora + config.rope_dim}};
  if (config.q_lora > 0) {
    q_norm_.emplace(name + ".q_norm", config.q_lora, config.latent_eps);
    q_up_.emplace(name + ".q_up", config.q_lora, config.heads * config.qk_dim(), init_std);
  }
}

void LatentAttention::visit(const ParamVisitor& visitor) {
  down_.visit(visitor);
  if (q_norm_) q_norm_->visit(visitor);
  if (q_up_) q_up_->visit(visitor);
  kv_norm_.visit(visitor);
  kv_up_.visit(visitor);
  out_.visit(visitor);
}

void LatentAttention::expand(Context& ctx, const Tensor& cos_sin, Arena& latents, Arena& heads,
                             LatentSaved& saved) const {
  const int64_t t = saved.down.dim(0), n = config_.heads;
  const DType dtype = saved.down.dtype();
  const Tensor queries = heads.empty({t, n * config_.qk_dim()}, dtype);
  if (q_up_) {
    saved.q_latent = latents.empty({t, config_.q_lora}, dtype);
    q_norm_->forward(ctx, saved.q_latent, saved.q_rstd, query_of(saved.down));
    q_up_->forward(ctx, queries, saved.q_latent);
  } else {
    ctx.run(Copy{.y = queries, .x = query_of(saved.down)});
  }
  saved.kv_latent = latents.empty({t, config_.kv_lora}, dtype);
  kv_norm_.forward(ctx, saved.kv_latent, saved.kv_rstd, latent_of(saved.down));
  saved.q = queries.split_cols(n, config_.qk_dim());
  saved.k = heads.empty({t, n, config_.qk_dim()}, dtype);
  saved.v = heads.empty({t, n, config_.v_dim}, dtype);
  const ArenaScope scope(ctx.scratch());
  const Tensor kv = kv_up_.forward(ctx, saved.kv_latent, ctx.scratch());
  ctx.run(MlaHeads{.q = saved.q,
                   .k = saved.k,
                   .v = saved.v,
                   .kv = kv.split_cols(n, config_.nope_dim + config_.v_dim),
                   .k_pe = k_pe_of(saved.down),
                   .cos_sin = cos_sin});
}

Tensor LatentAttention::forward(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute,
                                LatentSaved& saved, const KvCache* cache) const {
  const NameScope scope(ctx, "attention");
  const int64_t t = x.dim(0), n = config_.heads;
  Arena& kept = ctx.activations();
  saved.x = x;
  saved.down = down_.forward(ctx, x, kept);
  if (q_norm_) saved.q_rstd = kept.empty({t}, ctx.accumulator());
  saved.kv_rstd = kept.empty({t}, ctx.accumulator());
  saved.o = ctx.deferred().empty({t, n * config_.v_dim}, x.dtype());
  saved.lse = kept.empty({t, n}, ctx.accumulator());
  expand(ctx, cos_sin, recompute.mla_up ? ctx.scratch() : ctx.deferred(), recompute.mla_up ? ctx.scratch() : kept,
         saved);
  CachedKeys seen{.k = saved.k, .v = saved.v, .spec = spec_};
  if (cache != nullptr) seen = append(ctx, *cache, seen.k, seen.v, spec_);
  ctx.run(AttentionForward{.o = saved.o.view({t, n, config_.v_dim}),
                           .lse = saved.lse,
                           .q = saved.q,
                           .k = seen.k,
                           .v = seen.v,
                           .spec = seen.spec});
  return out_.forward(ctx, saved.o, ctx.scratch());
}

void LatentAttention::rebuild(Context& ctx, const Tensor& cos_sin, const RecomputePolicy& recompute,
                              LatentSaved& saved) const {
  const NameScope scope(ctx, "attention");
  if (recompute.mla_up) expand(ctx, cos_sin, ctx.deferred(), ctx.scratch(), saved);
}

void LatentAttention::backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin,
                               LatentSaved& saved) const {
  const NameScope scope(ctx, "attention");
  const int64_t t = dy.dim(0), n = config_.heads;
  Arena& scratch = ctx.scratch();
  Arena& deferred = ctx.deferred();
  saved.dy = dy;
  const Tensor d_o = scratch.empty_like(saved.o);
  out_.input_grad(ctx, d_o, dy);
  saved.dq = deferred.empty({t, n * config_.qk_dim()}, dy.dtype());
  saved.dkv = deferred.empty({t, n * (config_.nope_dim + config_.v_dim)}, dy.dtype());
  saved.ddown = deferred.empty_like(saved.down);
  const Tensor dq = saved.dq.split_cols(n, config_.qk_dim()), dk = scratch.empty_like(saved.k);
  const Tensor dv = scratch.empty_like(saved.v);
  ctx.run(AttentionBackward{.dq = dq,
                            .dk = dk,
                            .dv = dv,
                            .d_o = d_o.view({t, n, config_.v_dim}),
                            .o = saved.o.view({t, n, config_.v_dim}),
                            .lse = saved.lse,
                            .q = saved.q,
                            .k = saved.k,
                            .v = saved.v,
                            .spec = spec_});
  ctx.run(MlaHeadsBackward{.dq = dq,
                           .dkv = saved.dkv.split_cols(n, config_.nope_dim + config_.v_dim),
                           .dk_pe = k_pe_of(saved.ddown),
                           .dk = dk,
                           .dv = dv,
                           .cos_sin = cos_sin});
  if (q_up_) {
    const Tensor dlatent = scratch.empty_like(saved.q_latent);
    q_up_->input_grad(ctx, dlatent, saved.dq);
    q_norm_->backward(ctx, query_of(saved.ddown), dlatent, query_of(saved.down), saved.q_rstd);
  } else {
    ctx.run(Copy{.y = query_of(saved.ddown), .x = saved.dq});
  }
  const Tensor dlatent = scratch.empty_like(saved.kv_latent);
  kv_up_.input_grad(ctx, dlatent, saved.dkv);
  kv_norm_.backward(ctx, latent_of(saved.ddown), dlatent, latent_of(saved.down), saved.kv_rstd);
  down_.input_grad(ctx, dx, saved.ddown);
}

void LatentAttention::weight_grad(Context& ctx, const LatentSaved& saved) const {
  const NameScope scope(ctx, "attention");
  out_.weight_grad(ctx, saved.o, saved.dy);
  if (q_up_) q_up_->weight_grad(ctx, saved.q_latent, saved.dq);
  kv_up_.weight_grad(ctx, saved.kv_latent, saved.dkv);
  down_.weight_grad(ctx, saved.x, saved.ddown);
}

}  // namespace sluice
