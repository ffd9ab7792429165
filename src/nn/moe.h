// The mixture-of-experts layer as phases:  route | dispatch | compute | combine, and mirrored backward.
// Between dispatch and compute, and between compute and combine, rows travel; a runtime may put another micro-batch's
// phase there.
#pragma once

#include <string>

#include "nn/dispatcher.h"
#include "nn/experts.h"
#include "nn/router.h"

namespace sluice {

struct MoeSaved {
  RouterSaved router;
  RoutingRecord record;
  ExpertsSaved experts;
  Tensor x;  // [T, D] input (deferred; needed only where it is dispatched again)

  // Under way between phases; nothing of it outlives the micro-batch's F or B.
  Dispatcher::Transfer transfer;
  Tensor rows;  // [M, D] expert outputs or gradients
  Tensor drow;  // [M]
};

class Moe {
 public:
  // `ep`, the group of ranks that share the experts, must outlive the layer.
  Moe(const std::string& name, const MoeConfig& config, Communicator& ep, double init_std);

  // x [T, D] is the normed input, sample_ids [T / S]; the forecast answers on meta. load f64 [E], where it is defined,
  // += the slots that go to each expert.
  void route(Context& ctx, const Tensor& x, const Tensor& sample_ids, MoeSaved& saved,
             const LoadForecast& forecast = {}, const Tensor& load = {}) const;
  void dispatch(Context& ctx, MoeSaved& saved) const;
  void compute(Context& ctx, const RecomputePolicy& recompute, MoeSaved& saved) const;
  // out = add + routed output
  void combine(Context& ctx, const Tensor& out, const Tensor& add, MoeSaved& saved) const;

  // Makes again what forward did not keep; saved.x must be there if the dispatch is repeated.
  void rebuild(Context& ctx, const RecomputePolicy& recompute, MoeSaved& saved) const;

  void combine_backward(Context& ctx, const Tensor& dy, MoeSaved& saved) const;
  void compute_backward(Context& ctx, MoeSaved& saved) const;
  void dispatch_backward(Context& ctx, MoeSaved& saved) const;
  // dx = gradient through experts and router; grad_scale f64 [1], needed with a balance loss or a z-loss
  void route_backward(Context& ctx, const Tensor& dx, MoeSaved& saved, const Tensor& grad_scale = {}) const;
  void weight_grad(Context& ctx, const MoeSaved& saved) const;

  // Whether W or rebuild reads the input again.
  bool needs_input(const RecomputePolicy& recompute) const { return router_.learned() || recompute.dispatch; }
  void visit(const ParamVisitor& visitor);

 private:
  Router router_;
  Dispatcher dispatcher_;
  Experts experts_;
};

}  // namespace sluice
