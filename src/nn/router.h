// Router: which experts a token goes to and with what weight; learned (softmax, top-k, renormalised) or forced by a
// gate without parameters.
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
  Tensor probs;    // [T, E] (records: B)
  Tensor dlogits;  // [T, E] (deferred: W)
};

class Router {
 public:
  Router(const std::string& name, const MoeConfig& config, double init_std);

  // x [T, D], sample_ids [T / S]; sets record.experts and record.weights in the records arena.
  void forward(Context& ctx, const Tensor& x, const Tensor& sample_ids, RoutingRecord& record,
               RouterSaved& saved) const;
  // dx += gradient through the logits; dweights [T, K].
  void backward(Context& ctx, const Tensor& dx, const Tensor& dweights, const RoutingRecord& record,
                RouterSaved& saved) const;
  void weight_grad(Context& ctx, const RouterSaved& saved) const;

  bool learned() const { return linear_.has_value(); }
  void visit(const ParamVisitor& visitor);

 private:
  MoeConfig config_;
  std::optional<Linear> linear_;
};

}  // namespace sluice
