// One pre-norm transformer block:  mid = x + attention(norm1(x));  y = mid + moe(norm2(mid)) + mlp(norm2(mid)), with
// attention of any kind, and experts, an MLP, or both.
// Forward is four phases: attention and router | dispatch | experts | combine; backward is their mirror; weight
// gradients are apart. forward() and backward() are the loops over the phases.
#pragma once

#include <optional>
#include <string>

#include "nn/block_config.h"
#include "nn/mlp.h"
#include "nn/moe.h"

namespace sluice {

struct BlockSaved {
  Tensor x;      // [T, D] block input (records, owned by the runtime)
  Tensor rstd1;  // [T] (activations: B)
  Tensor mid;    // [T, D] (activations: B)
  Tensor rstd2;  // [T] (activations: B)
  AttentionSaved attention;
  MoeSaved moe;
  MlpSaved mlp;
  Tensor dmid;  // [T, D] (deferred: W of attention's output)
};

// What a block needs besides its input.
struct BlockInput {
  Tensor cos_sin;              // [S, AttentionSizes::rope_dim]
  Tensor sample_ids;           // i64 [T / S]
  LoadForecast forecast = {};  // of this micro-batch's routing; needed on meta
  // f64 [1], one over the label tokens of the global batch; for the backward of a router's own losses.
  Tensor grad_scale;
  // f64 [E], += the slots that go to each expert; undefined: not counted. Read by forward alone, and no rebuild counts
  // again.
  Tensor load = {};
  // Set where a sequence is continued: see Attention::forward. The router must then be a learned one, which asks for
  // no sample_ids.
  const KvCache* cache = nullptr;
};

class Block {
 public:
  static constexpr int kPhases = 4;

  Block(const std::string& name, const BlockConfig& config, Communicator& ep);

  // y [T, D] is written in the last phase. x must live until the backward.
  void forward_phase(Context& ctx, int phase, const Tensor& y, const Tensor& x, const BlockInput& input,
                     const RecomputePolicy& recompute, BlockSaved& saved) const;
  void forward(Context& ctx, const Tensor& y, const Tensor& x, const BlockInput& input,
               const RecomputePolicy& recompute, BlockSaved& saved) const;

  // Makes again what forward did not keep, before backward. With recompute.full: everything but the routing record,
  // by the forward of the same phases; `y` is then scratch of the caller's choice.
  void rebuild(Context& ctx, const BlockInput& input, const RecomputePolicy& recompute, BlockSaved& saved) const;

  // Phases run from kPhases - 1 down to 0. dx = gradient of x, written in phase 0; may not alias dy.
  void backward_phase(Context& ctx, int phase, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                      BlockSaved& saved) const;
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const BlockInput& input, BlockSaved& saved) const;
  void weight_grad(Context& ctx, const BlockSaved& saved) const;

  void visit(const ParamVisitor& visitor);
  const std::string& name() const { return name_; }

 private:
  std::string phase_name(int phase) const;
  Tensor attend(Context& ctx, const BlockInput& input, const RecomputePolicy& recompute, BlockSaved& saved) const;
  void finish(Context& ctx, const Tensor& y, const RecomputePolicy& recompute, BlockSaved& saved) const;
  // Hands norm2's output to whoever reads it again.
  void share_normed(const Tensor& normed, BlockSaved& saved) const;
  bool needs_normed(const RecomputePolicy& recompute) const {
    return mlp_.has_value() || (moe_ && moe_->needs_input(recompute));
  }
  void attend_backward(Context& ctx, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                       BlockSaved& saved) const;

  std::string name_;
  RmsNorm norm1_;
  Attention attention_;
  RmsNorm norm2_;
  std::optional<Moe> moe_;
  std::optional<Mlp> mlp_;
};

}  // namespace sluice
