// Router: which experts a token goes to and with what weight: learned (softmax or sigmoid, see RouterKind) or forced by
// a gate without parameters. A sigmoid router's selection bias has no gradient: the backward counts the experts' slots
// into its place (ParamSpec::balanced_top_k), once per micro-batch whatever is recomputed. So does the parameter that
// holds the shares of the last step's slots, which a balance loss over the global batch reads: those of the step under
// way are not known before its last forward.
#pragma once

#include <optional>
#include <string>

#include "nn/block_config.h"
#include "nn/dispatcher.h"
#include "nn/linear.h"

namespace sluice {

// T tokens, E experts, K chosen. Only a learned router keeps anything.
struct RouterSaved {
  Tensor x;        // [T, D] input (deferred: W; rebuilt with recompute norm)
  Tensor probs;    // [T, E] softmax, or the sigmoids (records: B)
  Tensor logits;   // [T, E] (records: B, only with a z-loss)
  Tensor dlogits;  // [T, E] (deferred: W)
};

class Router {
 public:
  Router(const std::string& name, const MoeConfig& config, double init_std);

  // x [T, D], sample_ids [T / S]; sets record.experts and record.weights in the records arena.
  void forward(Context& ctx, const Tensor& x, const Tensor& sample_ids, RoutingRecord& record,
               RouterSaved& saved) const;
  // dx += gradient through the logits; dweights [T, K]; grad_scale f64 [1], needed with a balance loss or a z-loss.
  void backward(Context& ctx, const Tensor& dx, const Tensor& dweights, const RoutingRecord& record, RouterSaved& saved,
                const Tensor& grad_scale = {}) const;
  void weight_grad(Context& ctx, const RouterSaved& saved) const;

  bool learned() const { return linear_.has_value(); }
  void visit(const ParamVisitor& visitor);

 private:
  void add_balance_loss(Context& ctx, const RoutingRecord& record, const RouterSaved& saved,
                        const Tensor& grad_scale) const;

  MoeConfig config_;
  std::optional<Linear> linear_;
  std::optional<Param> selection_bias_;  // [E]
  std::optional<Param> load_share_;      // [E]
};

}  // namespace sluice
