// Fifty steps of training against transformers and torch.optim.AdamW (make_trajectories.py): warm-up and cosine decay,
// weight decay of matrices alone, clipping in some steps, the balance loss, the step of the selection bias, several
// micro-batches a step. Rates, losses, gradient norms, loads and the weights at the end, in f64 within 1e-9.
#include "trajectory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/hub_match.h"
#include "device/ref/ref_backend.h"
#include "model/family.h"
#include "training/session.h"

namespace sluice::test {
namespace {

constexpr double kTolerance = 1e-9;

bool decays(const std::string& hub_name) {
  return !hub_name.ends_with("bias") && !hub_name.ends_with("sinks") && hub_name.find("norm") == std::string::npos;
}

template <class Of>
std::vector<double> each(const std::vector<StepResult>& steps, Of of) {
  std::vector<double> values;
  for (const StepResult& step : steps) values.push_back(of(step));
  return values;
}

// Of the difference of two runs' numbers, step by step, each over its own size.
double step_error(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size() || got.empty()) return HUGE_VAL;
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double relative = std::abs(got[i] - expected[i]) / std::abs(expected[i]);
    if (!(relative <= error)) error = relative;
  }
  return error;
}

std::vector<double> losses_of(const TrajectoryResult& run) {
  return each(run.steps, [](const StepResult& step) { return step.loss; });
}

void expect_weights(const Trajectory& trajectory, const TrajectoryResult& run) {
  double worst = 0;
  int decayed = 0, not_decayed = 0;
  for (const auto& [hub, values] : run.after) {
    ASSERT_TRUE(trajectory.has("after." + hub)) << hub;
    const double error = error_of(digest(values), trajectory.values("after." + hub));
    EXPECT_LE(error, kTolerance) << hub;
    worst = std::max(worst, error);
    EXPECT_GT(error_of(values, run.before.at(hub)), 1e-4) << hub << " did not move";
    ++(decays(hub) ? decayed : not_decayed);
  }
  EXPECT_EQ(decayed + not_decayed, trajectory.count("after."));
  EXPECT_GE(std::min(decayed, not_decayed), 5);
  testing::Test::RecordProperty("weights_error", fmt::format("{:.1e}", worst));
}

// The selection biases' loads, of every step; some were exactly the mean, where a bias stays.
void expect_loads(const Trajectory& trajectory, const TrajectoryResult& run) {
  EXPECT_EQ(std::ssize(run.loads), trajectory.count("loads."));
  int64_t at_the_mean = 0;
  for (const auto& [layer, loads] : run.loads) {
    const safetensors::StoredTensor& stored = trajectory.stored("loads." + layer);
    std::vector<int32_t> expected(stored.bytes.size() / sizeof(int32_t));
    std::memcpy(expected.data(), stored.bytes.data(), stored.bytes.size());
    EXPECT_EQ(loads, expected) << "layer " << layer;
    const int64_t experts = stored.spec.shape[1];
    const int64_t slots = std::accumulate(expected.begin(), expected.begin() + experts, int64_t{0});
    at_the_mean += std::ranges::count_if(expected, [&](int32_t load) { return load * experts == slots; });
  }
  EXPECT_TRUE(run.loads.empty() || at_the_mean > 0);
}

void expect_trajectory(const std::string& name, Backend& backend) {
  const Trajectory trajectory(name);
  const RunSpec spec = trajectory.spec({});
  const auto steps = trajectories_manifest().at("steps").get<int64_t>();
  ASSERT_EQ(steps, 50);
  const TrajectoryResult run = follow(trajectory, spec, steps, backend);

  const std::vector<double> rates = each(run.steps, [](const StepResult& step) { return step.learning_rate; });
  const std::vector<double> norms = each(run.steps, [](const StepResult& step) { return step.gradient_norm; });
  EXPECT_LE(step_error(rates, trajectory.values("learning_rates")), 1e-12) << "learning rates";
  EXPECT_LE(step_error(losses_of(run), trajectory.values("losses")), kTolerance) << "losses";
  EXPECT_LE(step_error(norms, trajectory.values("gradient_norms")), kTolerance) << "gradient norms";
  testing::Test::RecordProperty("losses_error",
                                fmt::format("{:.1e}", step_error(losses_of(run), trajectory.values("losses"))));
  if (trajectory.golden().has_mtp()) {
    // The golden's are over the labels of the model.
    const std::vector<double> further = each(run.steps, [](const StepResult& step) {
      return *step.mtp_loss * static_cast<double>(step.mtp_label_tokens) / static_cast<double>(step.label_tokens);
    });
    EXPECT_LE(step_error(further, trajectory.values("mtp_losses")), kTolerance) << "losses of the extra layer";
  }
  expect_loads(trajectory, run);
  expect_weights(trajectory, run);

  // What the run is for took place.
  const auto warmup = static_cast<int64_t>(trajectory.setting("warmup"));
  EXPECT_TRUE(warmup > 1 && std::is_sorted(rates.begin(), rates.begin() + warmup + 1) && rates[0] < rates[1]);
  EXPECT_TRUE(std::is_sorted(rates.rbegin(), rates.rend() - warmup));
  EXPECT_EQ(rates.back(), trajectory.setting("minimum"));
  const int64_t clipped = std::ranges::count_if(norms, [&](double norm) { return norm > spec.max_norm; });
  EXPECT_GE(std::min(clipped, steps - clipped), 5) << clipped << " of the steps are clipped";
  EXPECT_LT(run.steps.back().loss, run.steps.front().loss);
}

class Trajectories : public testing::TestWithParam<std::string> {};

TEST_P(Trajectories, InDoublePrecision) {
  RefBackend backend;
  expect_trajectory(GetParam(), backend);
}

INSTANTIATE_TEST_SUITE_P(Models, Trajectories, testing::ValuesIn(trajectory_names()),
                         [](const auto& instance) { return instance.param; });

// On several ranks, from the hub's weights: of the losses and norms of all steps, each depends on every weight before
// it. The micro-batches are the same ones, so their balance losses are.
struct Spread {
  std::string name;
  std::string model;
  int ranks;
  std::vector<std::string> overrides;
  friend std::ostream& operator<<(std::ostream& out, const Spread& spread) { return out << spread.name; }
};

class SpreadTrajectories : public testing::TestWithParam<Spread> {};

TEST_P(SpreadTrajectories, AreTheSame) {
  const Trajectory trajectory(GetParam().model);
  const RunSpec spec = trajectory.spec(GetParam().overrides, GetParam().ranks);
  const HubWeights hub(trajectory.golden().directory() / "weights.safetensors");
  const HubMatch weights = match_weights(hub, spec.model);
  const TrajectoryTokens tokens(trajectory);
  std::vector<double> losses, norms;
  run_session(spec, {.device = DeviceKind::ref, .comm = {.timeout_s = 60}}, tokens, [&](Trainer& trainer) {
    trainer.load(weights, {});
    for (int64_t step = 0; step < spec.steps; ++step) {
      const StepResult result = trainer.step(step);
      if (trainer.mesh().world.rank() != 0) continue;
      losses.push_back(result.loss);
      norms.push_back(result.gradient_norm);
    }
  });
  EXPECT_LE(step_error(losses, trajectory.values("losses")), kTolerance);
  EXPECT_LE(step_error(norms, trajectory.values("gradient_norms")), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Layouts, SpreadTrajectories,
                         testing::Values(Spread{"sharded", "qwen3", 2, {}},
                                         Spread{"replicated", "gpt_oss", 2, {"--distributed.dp_replicate_size=2"}},
                                         Spread{"experts_apart", "qwen3_moe", 2, {"--distributed.ep_size=2"}},
                                         Spread{
                                             "stages",
                                             "deepseek_v3_mtp",
                                             2,
                                             {"--distributed.pp_size=2", "--distributed.pipeline.pp_microbatch_size=2",
                                              "--step_scheduler.local_batch_size=4"}},
                                         Spread{"stages_of_two_ranks",
                                                "deepseek_v3",
                                                4,
                                                {"--distributed.pp_size=2", "--distributed.ep_size=2",
                                                 "--distributed.pipeline.pp_microbatch_size=2"}}),
                         [](const auto& instance) { return instance.param.name; });

// One thing left out, or changed a little: the steps' losses are others, so each of them is compared above.
struct Departure {
  std::string name;
  std::string model;
  std::vector<std::string> overrides;
  std::function<void(RunSpec& spec)> change = [](RunSpec&) {};
  friend std::ostream& operator<<(std::ostream& out, const Departure& departure) { return out << departure.name; }
};

class Departures : public testing::TestWithParam<Departure> {};

TEST_P(Departures, IsAnotherTrajectory) {
  const Trajectory trajectory(GetParam().model);
  RunSpec spec = trajectory.spec(GetParam().overrides);
  GetParam().change(spec);
  constexpr int64_t kSteps = 12;
  RefBackend backend;
  const TrajectoryResult run = follow(trajectory, spec, kSteps, backend);
  std::vector<double> expected = trajectory.values("losses");
  expected.resize(kSteps);
  EXPECT_GT(step_error(losses_of(run), expected), 1e3 * kTolerance);
}

INSTANTIATE_TEST_SUITE_P(
    All, Departures,
    testing::Values(Departure{"no_decay", "llama", {"--optimizer.weight_decay=0"}},
                    Departure{"no_clipping", "llama", {"--clip_grad_norm.max_norm=1e9"}},
                    Departure{"no_warm_up", "llama", {"--lr_scheduler.lr_warmup_steps=0"}},
                    Departure{"a_shorter_warm_up", "llama", {"--lr_scheduler.lr_warmup_steps=7"}},
                    Departure{"a_longer_decay", "llama", {"--lr_scheduler.lr_decay_steps=45"}},
                    Departure{"another_second_moment", "llama", {"--optimizer.betas=[0.9, 0.951]"}},
                    Departure{"no_balance_loss", "qwen3_moe", {"--model.aux_loss_coef=0"}},
                    Departure{"no_loss_of_sequences", "deepseek_v3", {"--model.aux_loss_coef=0"}},
                    Departure{
                        "no_step_of_the_bias", "deepseek_v3", {}, [](RunSpec& spec) { spec.selection_bias_rate = 0; }}),
    [](const auto& instance) { return instance.param.name; });

TEST(TrajectoryFiles, AreThoseOfTheManifest) {
  size_t bytes = 0;
  for (const auto& [name, facts] : trajectories_manifest().at("models").items()) {
    const MappedFile stored(trajectories_directory() / (name + ".safetensors"));
    EXPECT_EQ(stored.bytes().size(), facts.at("bytes").get<size_t>()) << name;
    EXPECT_EQ(fmt::format("{:016x}", hash64(stored.bytes())), facts.at("hash").get<std::string>()) << name;
    bytes += stored.bytes().size();
  }
  EXPECT_LE(bytes, 400'000U) << "they are kept in the repository's history";
  // Every family has one.
  for (const std::string& family : family_names()) {
    EXPECT_TRUE(trajectories_manifest().at("models").contains(family)) << family;
  }
}

}  // namespace
}  // namespace sluice::test
