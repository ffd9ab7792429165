// Grouped-query attention: qkv = x Wqkv^T, RMSNorm on each head of q and k, rotary positions, attention (with sinks),
// output projection; norms, biases and sinks where a family has them.   Qwen3 technical report 2025; GQA: Ainslie et
// al. 2023.
#pragma once

#include <optional>
#include <string>

#include "nn/block_config.h"
#include "nn/kv_cache.h"
#include "nn/linear.h"
#include "nn/rmsnorm.h"

namespace sluice {

// T tokens, n query heads, kv key/value heads, d head dim. Comments name the arena and the last reader.
struct AttentionSaved {
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

class Attention {
 public:
  Attention(const std::string& name, const AttentionConfig& config, double norm_eps, double init_std);

  // x [T, D], cos_sin [S, d]; returns [T, D] in scratch. x must live as AttentionSaved::x says, or be rebuilt.
  // With a cache x are the next tokens of its sequence and cos_sin [T, d] is of their positions; no backward then.
  Tensor forward(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute,
                 AttentionSaved& saved, const KvCache* cache = nullptr) const;
  // Makes again what forward did not keep.
  void rebuild(Context& ctx, const Tensor& cos_sin, const RecomputePolicy& recompute, AttentionSaved& saved) const;
  // dx = [T, D]; dy must live until weight_grad.
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin, AttentionSaved& saved) const;
  void weight_grad(Context& ctx, const AttentionSaved& saved) const;

  void visit(const ParamVisitor& visitor);

 private:
  // Views of the q, k and v columns of a [T, (n + 2 kv) d] matrix.
  Tensor q_of(const Tensor& qkv) const { return qkv.cols(0, n_ * d_).split_cols(n_, d_); }
  Tensor k_of(const Tensor& qkv) const { return qkv.cols(n_ * d_, kv_ * d_).split_cols(kv_, d_); }
  Tensor v_of(const Tensor& qkv) const { return qkv.cols((n_ + kv_) * d_, kv_ * d_).split_cols(kv_, d_); }
  void norm_and_rotate(Context& ctx, const Tensor& cos_sin, Arena& arena, AttentionSaved& saved) const;

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
