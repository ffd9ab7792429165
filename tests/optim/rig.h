// Parameter groups of a rank's own making, and what a step needs to know.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "comm/mesh.h"
#include "ops/optimizer.h"
#include "parallel/flat_group.h"
#include "support/test_context.h"

namespace sluice::test {

// State of a step counted from 0.
inline Tensor step_state(TestContext& tc, int step, double rate, double clip = 1, double beta1 = 0.9,
                         double beta2 = 0.999, double decay = 0) {
  std::vector<double> values(kStepSlots, 1);
  values[kLearningRate] = rate;
  values[kBiasCorrection1] = 1 - std::pow(beta1, step + 1);
  values[kBiasCorrection2] = 1 - std::pow(beta2, step + 1);
  values[kClipFactor] = clip;
  values[kStep] = step;
  values[kWeightDecay] = decay;
  const Tensor state = tc.empty({kStepSlots}, DType::f64);
  assign(state, values);
  return state;
}

// One parameter as a group of its own. `value(i)` and `gradient(i)` are of its global element i.
class OneParam {
 public:
  OneParam(TestContext& tc, Mesh& mesh, const ParamSpec& spec)
      : tc_(tc),
        expert_(spec.mesh == ParamMesh::expert),
        holders_((expert_ ? *mesh.ep_shard : *mesh.dp).size()),
        holder_((expert_ ? *mesh.ep_shard : *mesh.dp).rank()),
        param_(spec, expert_ ? mesh.at.ep : 0, expert_ ? mesh.spec.ep : 1),
        group_(spec.name, {&param_}, expert_ ? *mesh.ep_shard : *mesh.fsdp, expert_ ? nullptr : mesh.replicate.get(),
               {.dtype = tc.dtype()}, memory_, nullptr) {
    group_.initialize(*tc, 1);
  }

  FlatGroup& group() { return group_; }

  template <class Value>
  void set_values(Value value) {
    for (const FlatGroup::Piece& piece : group_.pieces()) {
      std::vector<double> values(static_cast<size_t>(piece.value.numel()));
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = value(piece.param->first + piece.first + static_cast<int64_t>(i));
      }
      assign(piece.value, values);
    }
    group_.invalidate();
  }
  // The sum over the ranks that hold it; of n ranks, rank r contributes 2 (r + 1) of n (n + 1) parts.
  template <class Gradient>
  void reduce(Gradient gradient) {
    const double share = 2.0 * (holder_ + 1) / (holders_ * (holders_ + 1));
    std::vector<double> values(static_cast<size_t>(param_.grad.numel()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = share * gradient(param_.first + static_cast<int64_t>(i));
    group_.zero_gradients(*tc_);
    assign(param_.grad, values);
    group_.begin_reduce(*tc_);
    group_.end_reduce(*tc_);
  }
  // This rank's copy of the whole local parameter, gathered again if it is stale.
  std::vector<double> gathered() {
    group_.begin_gather(*tc_);
    group_.end_gather(*tc_);
    std::vector<double> values = values_of(param_.value);
    group_.release();
    return values;
  }
  int64_t first() const { return param_.first; }

 private:
  TestContext& tc_;
  bool expert_;
  int holders_;
  int holder_;
  HostMemory memory_;
  Param param_;
  FlatGroup group_;
};

}  // namespace sluice::test
