// What the steps of a run tell the optimizer, step by step.
#include <gtest/gtest.h>

#include <cmath>

#include "support/host_tensor.h"
#include "support/whole_model.h"

namespace sluice::test {
namespace {

// The state that each step's first AdamW was given.
class States final : public OpObserver {
 public:
  explicit States(Context& ctx) : ctx_(ctx) { ctx.add_observer(this); }
  ~States() override { ctx_.remove_observer(this); }
  void after(const OpRecord& record) override {
    if (record.name != AdamW::name) return;
    for (const OpTensor& tensor : record.tensors) {
      if (tensor.name != std::string_view("state")) continue;
      std::vector<double> values = values_of(tensor.tensor);
      if (states.empty() || states.back() != values) states.push_back(std::move(values));
    }
  }

  std::vector<std::vector<double>> states;

 private:
  Context& ctx_;
};

std::vector<std::vector<double>> states_of(const std::vector<std::string>& overrides, int steps) {
  const WholeModel model(overrides);
  std::vector<std::vector<double>> states;
  model.with_trainer([&](Trainer& trainer) {
    States seen(trainer.context());
    for (int step = 0; step < steps; ++step) trainer.step(step);
    states = seen.states;
  });
  return states;
}

TEST(OptimizerOfARun, EachStepHasItsRateDecayAndCorrections) {
  const auto states =
      states_of({"--optimizer.lr=0.003", "--step_scheduler.max_steps=20", "--optimizer.betas=[0.8, 0.9]",
                 "--optimizer.weight_decay=0.1",
                 "--lr_scheduler={lr_decay_style: linear, lr_warmup_steps: 2, min_lr: 0, end_wd: 0.5, wd_incr_style: "
                 "linear, wd_incr_steps: 8}"},
                5);
  ASSERT_EQ(states.size(), 5U);
  const std::vector<double> shares = {1.0 / 3, 2.0 / 3, 1, 17.0 / 18, 16.0 / 18};  // of 0.003; 18 steps of decay
  for (size_t step = 0; step < 5; ++step) {
    SCOPED_TRACE(step);
    const auto n = static_cast<double>(step);
    EXPECT_NEAR(states[step][kLearningRate], 0.003 * shares[step], 1e-15);
    EXPECT_NEAR(states[step][kWeightDecay], 0.1 + 0.4 * n / 8, 1e-15);
    EXPECT_NEAR(states[step][kBiasCorrection1], 1 - std::pow(0.8, n + 1), 1e-15);
    EXPECT_NEAR(states[step][kBiasCorrection2], 1 - std::pow(0.9, n + 1), 1e-15);
    EXPECT_EQ(states[step][kStep], n);
  }
}

TEST(OptimizerOfARun, CorrectsOnlyWhereAskedTo) {
  for (const std::vector<double>& state : states_of({"--optimizer.bias_correction=false"}, 2)) {
    EXPECT_EQ(state[kBiasCorrection1], 1);
    EXPECT_EQ(state[kBiasCorrection2], 1);
  }
}

}  // namespace
}  // namespace sluice::test
