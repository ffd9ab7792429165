// AdamW and Adam on the shards of parameter groups that gradients train; moments and masters are shards too.
//   Loshchilov & Hutter 2019, Kingma & Ba 2015
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "optim/decayed_params.h"
#include "parallel/flat_group.h"

namespace sluice {

// Elements [first, first + count) of a parameter, as the whole is numbered, and what their step is multiplied by.
struct ParamScale {
  int64_t first = 0;
  int64_t count = 0;
  double lr = 1;
  double decay = 1;
};
// By the parameter's name, in ascending order; elements that are not listed have 1.
using ParamScales = std::map<std::string, std::vector<ParamScale>, std::less<>>;

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  bool coupled_decay = false;  // Adam's: the decay is a part of the gradient
  bool bias_correction = true;
  DecayedParams decayed = DecayedParams::matrices;
  ParamScales scales = {};
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
  AdamWOptimizer(Context& ctx, std::vector<FlatGroup*> groups, AdamWOptions options, Memory& memory);

  // One step from the groups' reduced gradients. Learning rate, weight decay, bias corrections and clip factor come
  // from `state` (f64 [kStepSlots]). The groups' gathered copies are stale afterwards.
  void step(Context& ctx, const Tensor& state);

  const AdamWOptions& options() const { return options_; }
  // Of group i, as its shard; undefined where there is none.
  const Tensor& master(size_t i) const { return states_[i].master; }
  const Tensor& moment1(size_t i) const { return states_[i].m; }
  const Tensor& moment2(size_t i) const { return states_[i].v; }

 private:
  // Elements of a shard that one operation updates.
  struct Part {
    int64_t offset = 0;
    int64_t count = 0;
    double lr = 1;
    double decay = 1;
    uint64_t key = 0;
    int64_t first = 0;
  };
  struct State {
    Tensor m;
    Tensor v;
    Tensor master;
    std::vector<Part> parts;
  };
  bool rounds_stochastically(const FlatGroup& group) const;
  void add_parts(const FlatGroup::Piece& piece, std::vector<Part>& parts, bool rounded) const;
  std::vector<Part> parts(const FlatGroup& group) const;

  AdamWOptions options_;
  std::vector<FlatGroup*> groups_;
  Arena arena_;
  std::vector<State> states_;
};

}  // namespace sluice
