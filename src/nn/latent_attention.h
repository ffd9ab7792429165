// Multi-head latent attention: queries, keys and values come from two narrow latents of each token,
//   q = RMSNorm(x Wqa^T) Wqb^T,   [c | k_pe] = x Wkva^T,   [k_nope | v] = RMSNorm(c) Wkvb^T,
// the last columns of q and the one k_pe all heads share are rotated; then ordinary attention with keys wider than
// values.   [DeepSeek-V2 2024] Without a query latent q = x Wq^T.
#pragma once

#include <optional>
#include <string>

#include "nn/attention_sizes.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/recompute.h"
#include "nn/rmsnorm.h"

namespace sluice {

// dn + dr columns of a query or key, of which the last dr carry positions (neighbouring pairs), dv of a value.
struct LatentConfig {
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t q_lora = 0;  // width of the query latent; 0: queries come from the hidden state
  int64_t kv_lora = 0;
  int64_t nope_dim = 0;
  int64_t rope_dim = 0;
  int64_t v_dim = 0;
  int64_t seq_len = 0;
  double scale_factor = 1;  // over 1 / sqrt(dn + dr): YaRN's m^2
  // Of the latents' norms, whatever rms_norm_eps is: DeepSeek's code and Hugging Face's make them without it.
  double latent_eps = 1e-6;

  int64_t qk_dim() const { return nope_dim + rope_dim; }
  // A cache has the keys and values of every head.
  AttentionSizes sizes() const { return {hidden, rope_dim, heads, qk_dim(), v_dim, 0}; }
  std::string str() const;  // "latent attention, 128 heads, query latent"
};

// T tokens, n heads, d = dn + dr. Comments name the arena and the last reader. Rebuilt with recompute mla_up: what is
// marked so.
struct LatentSaved {
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

class LatentAttention {
 public:
  using Config = LatentConfig;
  using Saved = LatentSaved;
  static constexpr bool RecomputePolicy::* own_piece = &RecomputePolicy::mla_up;

  // The eps of a block's norms has no part in it.
  LatentAttention(const std::string& name, const LatentConfig& config, double norm_eps, double init_std);

  // See AttentionOf; cos_sin [S, dr].
  Tensor forward(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute,
                 LatentSaved& saved, const KvCache* cache = nullptr) const;
  void rebuild(Context& ctx, const Tensor& cos_sin, const RecomputePolicy& recompute, LatentSaved& saved) const;
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin, LatentSaved& saved) const;
  void weight_grad(Context& ctx, const LatentSaved& saved) const;

  void visit(const ParamVisitor& visitor);

 private:
  // Columns of a matrix like `down`: query latent (or the queries themselves), key/value latent, shared rotary key.
  int64_t query_cols() const { return config_.q_lora > 0 ? config_.q_lora : config_.heads * config_.qk_dim(); }
  Tensor query_of(const Tensor& down) const { return down.cols(0, query_cols()); }
  Tensor latent_of(const Tensor& down) const { return down.cols(query_cols(), config_.kv_lora); }
  Tensor k_pe_of(const Tensor& down) const { return down.cols(query_cols() + config_.kv_lora, config_.rope_dim); }
  // From saved.down to saved.q, k and v.
  void expand(Context& ctx, const Tensor& cos_sin, Arena& latents, Arena& heads, LatentSaved& saved) const;

  LatentConfig config_;
  AttentionSpec spec_;
  Linear down_;
  std::optional<RmsNorm> q_norm_;
  std::optional<Linear> q_up_;
  RmsNorm kv_norm_;
  Linear kv_up_;
  Linear out_;
};

}  // namespace sluice
