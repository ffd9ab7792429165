// AdamW on the shards of parameter groups that gradients train; moments and masters are shards too.   Loshchilov &
// Hutter 2019
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
  // Of both moments; raised to f64 for f64 parameters. With f32, bf16 parameters have f32 masters, which steps are made
  // on; without, they are rounded at random (AdamW::stochastic_rounding).
  DType state_dtype = DType::f32;
  bool stochastic_rounding = true;
  uint64_t seed = 0;  // of the rounding
};

class AdamWOptimizer {
 public:
  // Takes memory for the moments of `groups`, which must outlive the optimizer, and sets them to zero; and for their
  // masters, which are the caller's to set (FlatGroup::initialize).
  AdamWOptimizer(Context& ctx, std::vector<FlatGroup*> groups, const AdamWOptions& options, Memory& memory);

  // One step from the groups' reduced gradients. Learning rate, bias corrections and clip factor come from `state`
  // (f64 [kStepSlots]). The groups' gathered copies are stale afterwards.
  void step(Context& ctx, const Tensor& state);

  const AdamWOptions& options() const { return options_; }
  // Of group i, as its shard; undefined where there is none.
  const Tensor& master(size_t i) const { return states_[i].master; }

 private:
  struct State {
    Tensor m;
    Tensor v;
    Tensor master;
  };
  // Elements of a shard that one operation updates.
  struct Part {
    int64_t offset = 0;
    int64_t count = 0;
    bool decay = true;
    uint64_t key = 0;
    int64_t first = 0;
  };
  bool rounds_stochastically(const FlatGroup& group) const;
  std::vector<Part> parts(const FlatGroup& group) const;

  AdamWOptions options_;
  std::vector<FlatGroup*> groups_;
  Arena arena_;
  std::vector<State> states_;
};

}  // namespace sluice
