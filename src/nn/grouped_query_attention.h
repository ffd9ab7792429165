// Grouped-query attention: qkv = x Wqkv^T, RMSNorm on each head of q and k, rotary positions, attention (with sinks),
// output projection; norms, biases and sinks where a family has them.   Qwen3 technical report 2025; GQA: Ainslie et
// al. 2023.
#pragma once

#include <optional>
#include <string>

#include "nn/attention_sizes.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/recompute.h"
#include "nn/rmsnorm.h"

namespace sluice {

struct GroupedQueryConfig {
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t seq_len = 0;
  int64_t window = 0;  // 0: all earlier keys
  bool qk_norm = false;
  bool bias = false;   // of q, k, v and the output projection
  bool sinks = false;  // a logit per head that joins the softmax's denominator

  AttentionSizes sizes() const { return {hidden, head_dim, kv_heads, head_dim, head_dim, window}; }
  // "attention, 32 heads on 4, normed queries and keys"; the window is said apart, it is not of every layer.
  std::string str() const;
};

// T tokens, n query heads, kv key/value heads, d head dim. Comments name the arena and the last reader.
struct GroupedQuerySaved {
  Tensor x;       // [T, D] input (deferred: W of qkv)
  Tensor qkv;     // [T, (n + 2 kv) d] (activations: B)
  Tensor q_rstd;  // [T, n] (activations: B)
  Tensor k_rstd;  // [T, kv] (activations: B)
  Tensor q;       // [T, n, d] normed and rotated (activations: B; rebuilt with recompute qk_rope)
  Tensor k;       // [T, kv, d] likewise
  Tensor o;       // [T, n d] (deferred: W of out)
  Tensor lse;     // [T, n] (activations: B)
  Tensor dy;      // [T, D] (deferred: W of out)
  Tensor dqkv;    // [T, (n + 2 kv) d] (deferred: W of qkv)
};

class GroupedQueryAttention {
 public:
  using Config = GroupedQueryConfig;
  using Saved = GroupedQuerySaved;
  static constexpr bool RecomputePolicy::* own_piece = &RecomputePolicy::qk_rope;

  GroupedQueryAttention(const std::string& name, const GroupedQueryConfig& config, double norm_eps, double init_std);

  // See AttentionOf; cos_sin [S, d].
  Tensor forward(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute,
                 GroupedQuerySaved& saved, const KvCache* cache = nullptr) const;
  void rebuild(Context& ctx, const Tensor& cos_sin, const RecomputePolicy& recompute, GroupedQuerySaved& saved) const;
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin,
                GroupedQuerySaved& saved) const;
  void weight_grad(Context& ctx, const GroupedQuerySaved& saved) const;

  void visit(const ParamVisitor& visitor);

 private:
  // Views of the q, k and v columns of a [T, (n + 2 kv) d] matrix.
  Tensor q_of(const Tensor& qkv) const { return qkv.cols(0, n_ * d_).split_cols(n_, d_); }
  Tensor k_of(const Tensor& qkv) const { return qkv.cols(n_ * d_, kv_ * d_).split_cols(kv_, d_); }
  Tensor v_of(const Tensor& qkv) const { return qkv.cols((n_ + kv_) * d_, kv_ * d_).split_cols(kv_, d_); }
  void norm_and_rotate(Context& ctx, const Tensor& cos_sin, Arena& arena, GroupedQuerySaved& saved) const;

  int64_t n_;
  int64_t kv_;
  int64_t d_;
  AttentionSpec spec_;
  Linear qkv_;
  std::optional<RmsNorm> q_norm_;
  std::optional<RmsNorm> k_norm_;
  std::optional<Param> sinks_;
  Linear out_;
};

}  // namespace sluice
