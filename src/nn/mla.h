// Multi-head latent attention: queries, keys and values come from two narrow latents of each token,
//   q = RMSNorm(x Wqa^T) Wqb^T,   [c | k_pe] = x Wkva^T,   [k_nope | v] = RMSNorm(c) Wkvb^T,
// the last columns of q and the one k_pe all heads share are rotated; then ordinary attention with keys wider than
// values.   [DeepSeek-V2 2024] Without a query latent q = x Wq^T.
#pragma once

#include <optional>
#include <string>

#include "nn/block_config.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/rmsnorm.h"

namespace sluice {

// T tokens, n heads, d = dn + dr. Comments name the arena and the last reader. Rebuilt with recompute mla_up: what is
// marked so.
struct MlaSaved {
  Tensor x;          // [T, D] input (deferred: W of down)
  Tensor down;       // [T, q_lora + kv_lora + dr] (activations: B)
  Tensor q_rstd;     // [T] (activations: B)
  Tensor kv_rstd;    // [T] (activations: B)
  Tensor q_latent;   // [T, q_lora] normed (deferred: W of q_up; rebuilt)
  Tensor kv_latent;  // [T, kv_lora] normed (deferred: W of kv_up; rebuilt)
  Tensor q;          // [T, n, d] rotated (activations: B; rebuilt)
  Tensor k;          // [T, n, d] rotated (activations: B; rebuilt)
  Tensor v;          // [T, n, dv] (activations: B; rebuilt)
  Tensor o;          // [T, n dv] (deferred: W of out)
  Tensor lse;        // [T, n] (activations: B)
  Tensor dy;         // [T, D] (deferred: W of out)
  Tensor dq;         // [T, n d] (deferred: W of q_up)
  Tensor dkv;        // [T, n (dn + dv)] (deferred: W of kv_up)
  Tensor ddown;      // as down (deferred: W of down)
};

class Mla {
 public:
  Mla(const std::string& name, const MlaConfig& config, double norm_eps, double init_std);

  // x [T, D], cos_sin [S, dr]; returns [T, D] in scratch. x must live as MlaSaved::x says, or be rebuilt.
  // With a cache x are the next tokens of its sequence and cos_sin [T, dr] is of their positions; no backward then.
  Tensor forward(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute,
                 MlaSaved& saved, const KvCache* cache = nullptr) const;
  // Makes again what forward did not keep.
  void rebuild(Context& ctx, const Tensor& cos_sin, const RecomputePolicy& recompute, MlaSaved& saved) const;
  // dx = [T, D]; dy must live until weight_grad.
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin, MlaSaved& saved) const;
  void weight_grad(Context& ctx, const MlaSaved& saved) const;

  void visit(const ParamVisitor& visitor);

 private:
  // Columns of a matrix like `down`: query latent (or the queries themselves), key/value latent, shared rotary key.
  int64_t query_cols() const { return config_.q_lora > 0 ? config_.q_lora : config_.heads * config_.qk_dim(); }
  Tensor query_of(const Tensor& down) const { return down.cols(0, query_cols()); }
  Tensor latent_of(const Tensor& down) const { return down.cols(query_cols(), config_.kv_lora); }
  Tensor k_pe_of(const Tensor& down) const { return down.cols(query_cols() + config_.kv_lora, config_.rope_dim); }
  // From saved.down to saved.q, k and v.
  void expand(Context& ctx, const Tensor& cos_sin, Arena& latents, Arena& heads, MlaSaved& saved) const;

  MlaConfig config_;
  AttentionSpec spec_;
  Linear down_;
  std::optional<RmsNorm> q_norm_;
  std::optional<Linear> q_up_;
  RmsNorm kv_norm_;
  Linear kv_up_;
  Linear out_;
};

}  // namespace sluice
