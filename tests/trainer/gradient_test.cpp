// The gradients of a whole model, as the trainer accumulates them over micro-batches, against differences of its loss
// in f64; and the proof that a broken operation anywhere in a training step shows in its results.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "support/host_tensor.h"
#include "support/known_mutants.h"
#include "support/whole_model.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  std::vector<std::string> overrides;
  std::string family = "qwen3_moe";
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

// Every loss that only its gradient is computed of, strong enough to show in it.
std::vector<std::string> other_losses() {
  return {"--benchmark.balance=router", "--model.aux_loss_coef=0.5", "--model.aux_loss_over=global_batch",
          "--model.router_z_loss_coef=0.3", "--loss_fn.z_loss_coef=0.2"};
}

std::vector<Case> mutated_cases() {
  return {{"router", {"--benchmark.balance=router"}},
          {"router_full", {"--benchmark.balance=router", "--memory.recompute=full"}},
          {"published", {"--benchmark.balance=published", "--model.backend.fake_gate_noise=0.5"}},
          {"deepseek_v3", {"--benchmark.balance=router"}, "deepseek_v3"},
          {"gpt_oss", {"--benchmark.balance=router"}, "gpt_oss"},
          {"balance_loss", {"--benchmark.balance=router", "--model.aux_loss_coef=0.5"}},
          {"other_losses", other_losses()}};
}

std::vector<Case> cases() {
  std::vector<Case> all = mutated_cases();
  all.push_back({"other_losses_full", other_losses()});
  all.back().overrides.emplace_back("--memory.recompute=full");
  all.push_back({"gpt_oss_z_losses",
                 {"--benchmark.balance=router", "--model.router_z_loss_coef=0.3", "--loss_fn.z_loss_coef=0.2"},
                 "gpt_oss"});
  all.push_back({"deepseek_v3_z_losses", all.back().overrides, "deepseek_v3"});
  all.push_back({"skewed", {"--benchmark.balance=skewed", "--benchmark.skew=2"}});
  const std::vector<std::string> shard = {"--benchmark.balance=router", "--benchmark.local_shard=2"};
  all.push_back({"local_shard", shard});
  all.push_back({"deepseek_v3_local_shard", shard, "deepseek_v3"});
  all.push_back({"gpt_oss_local_shard", {shard[0], shard[1], "--model.config.num_local_experts=4"}, "gpt_oss"});
  return all;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// One parameter, its gradient and a random direction.
struct Probe {
  Param* param;
  std::vector<double> value;
  std::vector<double> gradient;
  std::vector<double> direction;
  double slope() const { return dot(gradient, direction); }
  double norm() const { return std::sqrt(dot(gradient, gradient)); }
  void move(double amount) const {
    std::vector<double> moved = value;
    for (size_t i = 0; i < moved.size(); ++i) moved[i] += amount * direction[i];
    assign(param->value, moved);
  }
};

class WholeModelGradient : public testing::TestWithParam<Case> {};

TEST_P(WholeModelGradient, EqualsDifferencesInRandomDirections) {
  constexpr double kStep = 1e-5, kTolerance = 1e-6;
  const WholeModel model(GetParam().overrides, GetParam().family);
  const bool learned = model.spec().router != RouterKind::forced;
  model.with_trainer([&](Trainer& trainer) {
    std::vector<Probe> probes;
    std::vector<std::pair<Param*, std::vector<double>>> untrained;
    for (Param* param : parameters(trainer)) {
      if (param->spec.balanced_top_k == 0) {
        probes.push_back({param, values_of(param->value), {}, {}});
      } else {
        untrained.emplace_back(param, values_of(param->value));
      }
    }
    // Two blocks, the first of DeepSeek's being dense, and embedding, norm and head.
    const size_t of_blocks = GetParam().family == "deepseek_v3" ? 10 + 13
                             : GetParam().family == "gpt_oss"   ? 2 * 13
                             : learned                          ? 2 * 9
                                                                : 2 * 8;
    ASSERT_EQ(probes.size(), of_blocks + 3);
    trainer.step(0);
    std::vector<std::vector<double>> shares;
    for (const auto& [param, values] : untrained) {
      assign(param->value, values);
      if (param->spec.holds_shares) shares.push_back(values);
    }
    for (size_t i = 0; i < probes.size(); ++i) {
      probes[i].gradient = values_of(probes[i].param->grad);
      probes[i].direction = random_values(std::ssize(probes[i].value), 500 + i);
      probes[i].move(0);
    }
    RoutingTrace trace(trainer.context());
    trace.balance_over(shares);
    // The cross-entropy, and the losses that only gradients are computed of.
    const RunSpec& spec = model.spec();
    const auto loss = [&] {
      const double entropy = model.loss(trainer), tokens = static_cast<double>(spec.tokens_per_step());
      return entropy + (spec.aux_loss_coef * trace.take_balance() + spec.router_z_loss_coef * trace.take_router_z() +
                        spec.z_loss_coef * trace.take_head_z()) /
                           tokens;
    };
    loss();
    const std::vector<double> routing = trace.take();
    EXPECT_EQ(routing.empty(), !learned);
    const auto difference = [&](const std::vector<const Probe*>& moved) {
      double losses[2];
      for (const int side : {0, 1}) {
        for (const Probe* probe : moved) probe->move(side == 0 ? -kStep : kStep);
        losses[side] = loss();
        EXPECT_EQ(trace.take(), routing) << "the step changes the routing: no derivative";
      }
      for (const Probe* probe : moved) probe->move(0);
      return (losses[1] - losses[0]) / (2 * kStep);
    };
    std::vector<const Probe*> all;
    double slope = 0, squares = 0;
    for (const Probe& probe : probes) {
      const std::string& name = probe.param->spec.name;
      EXPECT_GT(probe.norm(), 0) << name;
      const double expected = difference({&probe});
      EXPECT_TRUE(std::abs(probe.slope() - expected) <= kTolerance * probe.norm())
          << name << ": " << probe.slope() << ", the difference is " << expected << ", the norm " << probe.norm();
      all.push_back(&probe);
      slope += probe.slope();
      squares += probe.norm() * probe.norm();
    }
    const double expected = difference(all);
    EXPECT_TRUE(std::abs(slope - expected) <= kTolerance * std::sqrt(squares))
        << "all together: " << slope << ", the difference is " << expected;
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, WholeModelGradient, testing::ValuesIn(cases()),
                         [](const auto& instance) { return instance.param.name; });

// What a step computes (loss, gradient norm, every gradient), and what it and an undisturbed repetition, which reads
// the optimizer's moments, change.
std::vector<Result> train_two_steps(const WholeModel& model, OpObserver& observer) {
  std::vector<Result> results;
  model.with_trainer([&](Trainer& trainer) {
    std::vector<std::vector<double>> before;
    for (const Param* param : parameters(trainer)) before.push_back(values_of(param->value));
    trainer.context().add_observer(&observer);
    const StepResult step = trainer.step(0);
    trainer.context().remove_observer(&observer);
    results = {{"loss", {step.loss}, {}}, {"gradient norm", {step.gradient_norm}, {}}};
    for (const LayerLoad& load : step.expert_load) {
      results.push_back({load.layer + " load", {load.max_over_mean, load.entropy}, {}});
    }
    for (const Param* param : parameters(trainer)) {
      results.push_back({param->spec.name + " gradient", values_of(param->grad), param->grad});
    }
    trainer.step(0);
    size_t next = 0;
    for (const Param* param : parameters(trainer)) {
      std::vector<double> change = values_of(param->value);
      for (size_t i = 0; i < change.size(); ++i) change[i] -= before[next][i];
      results.push_back({param->spec.name + " change", std::move(change), param->value});
      ++next;
    }
  });
  return results;
}

std::vector<Equivalent> equivalents(const std::string& family) {
  std::vector<Equivalent> all = router_equivalents();
  if (family == "deepseek_v3") {
    // Tokens choose one of two pairs of experts: the figures are those of one number.
    all.push_back({"expert_load", "load", "= instead of +=", "a micro-batch has the figures of the batch"});
    all.push_back({"expert_load", "load", "zero", "the other micro-batch has the figures of the batch"});
  }
  all.push_back({"expert_load", "load", "scale 1.01", "the figures of a layer's load depend on shares alone"});
  return all;
}

void expect_every_mutant_shows(const Case& c, int every) {
  const WholeModel model(c.overrides, c.family);
  const MutationReport report =
      expect_no_survivors([&](OpObserver& observer) { return train_two_steps(model, observer); },
                          {.every = every, .equivalent = equivalents(c.family)});
  std::vector<Unused> known;
  if (model.spec().recompute.any()) known = unused_when_rebuilding();
  if (model.spec().router == RouterKind::forced) known = unused_when_forced();
  expect_known(report, known);
  EXPECT_GT(report.mutants, 200);
}

class WholeModelMutation : public testing::TestWithParam<Case> {};
TEST_P(WholeModelMutation, ShowsInAStep) {
  expect_every_mutant_shows(GetParam(), 7);
}
INSTANTIATE_TEST_SUITE_P(Cases, WholeModelMutation, testing::ValuesIn(mutated_cases()),
                         [](const auto& instance) { return instance.param.name; });

class SweepWholeModelMutation : public testing::TestWithParam<Case> {};
TEST_P(SweepWholeModelMutation, ShowsInAStep) {
  expect_every_mutant_shows(GetParam(), 1);
}
INSTANTIATE_TEST_SUITE_P(Cases, SweepWholeModelMutation, testing::ValuesIn(mutated_cases()),
                         [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace sluice::test
