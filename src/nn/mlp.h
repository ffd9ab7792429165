// The gated MLP of a dense layer, or of the expert that every token visits beside the routed ones:
//   y += (silu(x Wg^T) * (x Wu^T)) Wd^T
#pragma once

#include <string>

#include "nn/block_config.h"
#include "nn/linear.h"

namespace sluice {

// T tokens, F width. Comments name the arena and the last reader.
struct MlpSaved {
  Tensor x;         // [T, D] input (deferred: W of gate_up; rebuilt by the block with recompute norm)
  Tensor gate_up;   // [T, 2 F] (activations: B; rebuilt with recompute experts)
  Tensor h;         // [T, F] (deferred: W of down; rebuilt with recompute act or experts)
  Tensor dy;        // [T, D] (deferred: W of down)
  Tensor dgate_up;  // [T, 2 F] (deferred: W of gate_up)
};

class Mlp {
 public:
  Mlp(const std::string& name, int64_t hidden, int64_t ffn, double init_std);

  // y [T, D] += MLP of x [T, D]; x must live as MlpSaved::x says, or be rebuilt.
  void forward(Context& ctx, const Tensor& y, const Tensor& x, const RecomputePolicy& recompute, MlpSaved& saved) const;
  // Makes again what forward did not keep; saved.x must be there.
  void rebuild(Context& ctx, const RecomputePolicy& recompute, MlpSaved& saved) const;
  // dx = or += gradient through the MLP
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, bool accumulate, MlpSaved& saved) const;
  void weight_grad(Context& ctx, const MlpSaved& saved) const;

  void visit(const ParamVisitor& visitor) {
    gate_up_.visit(visitor);
    down_.visit(visitor);
  }

 private:
  void activate(Context& ctx, Arena& arena, MlpSaved& saved) const;

  int64_t ffn_;
  Linear gate_up_;
  Linear down_;
};

}  // namespace sluice
