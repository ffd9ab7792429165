// Experts: one gated MLP each, over rows sorted by expert:  y = (silu(x Wg^T) * (x Wu^T) * weight) Wd^T, or another
// SwigluForm. The routing weight is applied between activation and down-projection, so no per-slot output is kept; with
// biases y = ... + weight bd.
#pragma once

#include <optional>
#include <string>

#include "nn/block_config.h"
#include "nn/dispatcher.h"
#include "nn/param.h"

namespace sluice {

// M expert rows.
struct ExpertsSaved {
  Tensor x;         // [M, D] (deferred: W of gate_up; rebuilt with recompute dispatch)
  Tensor gate_up;   // [M, 2 F] (activations: B; rebuilt with recompute experts)
  Tensor h;         // [M, F] (deferred: W of down; rebuilt with recompute act or experts)
  Tensor dy;        // [M, D] (deferred: W of down)
  Tensor dgate_up;  // [M, 2 F] (deferred: W of gate_up)
  Tensor offsets;   // i32 [experts here + 1] (deferred: W; the record itself is gone by then)
};

class Experts {
 public:
  Experts(const std::string& name, const MoeConfig& config, int ep_rank, int ep_size, double init_std);

  // x [M, D] -> y [M, D] in scratch
  Tensor forward(Context& ctx, const Tensor& x, const RoutingRecord& record, const RecomputePolicy& recompute,
                 ExpertsSaved& saved) const;
  // Makes again what forward did not keep; saved.x must be there.
  void rebuild(Context& ctx, const RoutingRecord& record, const RecomputePolicy& recompute, ExpertsSaved& saved) const;
  // Returns dx [M, D] and sets drow [M], the gradient of the rows' weights, both in scratch.
  Tensor backward(Context& ctx, const Tensor& dy, const RoutingRecord& record, ExpertsSaved& saved, Tensor& drow) const;
  void weight_grad(Context& ctx, const ExpertsSaved& saved) const;

  void visit(const ParamVisitor& visitor) {
    visitor(gate_up_);
    if (gate_up_bias_) visitor(*gate_up_bias_);
    visitor(down_);
    if (down_bias_) visitor(*down_bias_);
  }

 private:
  void first_product(Context& ctx, const RoutingRecord& record, Arena& arena, ExpertsSaved& saved) const;
  void activate(Context& ctx, const RoutingRecord& record, Arena& arena, ExpertsSaved& saved) const;

  int64_t hidden_;
  int64_t ffn_;
  SwigluForm form_;
  Param gate_up_;
  Param down_;
  std::optional<Param> gate_up_bias_;  // [E, 2 F]
  std::optional<Param> down_bias_;     // [E, D]
};

}  // namespace sluice
