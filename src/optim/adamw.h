// AdamW on the shards of parameter groups; moments are shards too.   Loshchilov & Hutter 2019
#pragma once

#include <memory>
#include <vector>

#include "parallel/flat_group.h"

namespace sluice {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  DType state_dtype = DType::f32;  // of both moments; raised to f64 for f64 parameters
};

class AdamWOptimizer {
 public:
  // Takes memory for the moments of `groups`, which must outlive the optimizer, and sets them to zero.
  AdamWOptimizer(Context& ctx, std::vector<FlatGroup*> groups, const AdamWOptions& options, Memory& memory);

  // One step from the groups' reduced gradients. Learning rate, bias corrections and clip factor come from `state`
  // (f64 [kStepSlots]). The groups' gathered copies are stale afterwards.
  void step(Context& ctx, const Tensor& state);

  const AdamWOptions& options() const { return options_; }

 private:
  struct Moments {
    Tensor m;
    Tensor v;
  };
  AdamWOptions options_;
  std::vector<FlatGroup*> groups_;
  Arena arena_;
  std::vector<Moments> moments_;
};

}  // namespace sluice
