// Training with a GPU for each rank, in several processes, held to one rank: NCCL is carried out on the host, and adds
// in an order of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "comm/processes/run_processes.h"
#include "emulation/emulated.h"
#include "emulation/nccl/emulated_nccl.h"
#include "support/training.h"

namespace sluice::test {
namespace {

constexpr double kLossTolerance = 1e-10, kWeightTolerance = 1e-9;
constexpr int kSteps = 2;

Hardware emulated_gpu_each() {
  return {.backend = [](int) { return emulation::make_queued_backend(); },
          // Not the host's: that poisons what a stream may still be reading.
          .memory = [](int) { return emulation::make_memory(); },
          .gpu_ranks = emulation::run_nccl_ranks};
}

// Adds what the ranks of another process have.
void join(Training& all, const Training& part) {
  if (!part.losses.empty()) all.losses = part.losses;
  if (!part.loads.empty()) all.loads = part.loads;
  for (const auto& [name, values] : part.weights) {
    std::vector<double>& whole = all.weights[name];
    if (whole.empty()) whole = values;
    for (size_t i = 0; i < values.size(); ++i) {
      if (std::isnan(whole[i])) whole[i] = values[i];
    }
  }
}

struct Case {
  Layout layout;
  std::vector<int> processes;  // ranks of each; empty: one process
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.layout.name; }
};

Training train_on_nccl(const Case& c) {
  Training all;
  const TrainingOptions options{.hardware = emulated_gpu_each(), .steps = kSteps};
  if (c.processes.empty()) return train(c.layout, options);
  std::mutex mutex;
  expect_couriers({.ranks = c.processes, .timeout_s = 120}, [&](Courier& courier) {
    TrainingOptions own = options;
    own.courier = &courier;
    const Training part = train(c.layout, own);
    const std::lock_guard lock(mutex);
    join(all, part);
  });
  return all;
}

class NcclTraining : public testing::TestWithParam<Case> {};

TEST_P(NcclTraining, LossesAndWeightsAreThoseOfOneRank) {
  const Training one = train({"one", 1, {}, GetParam().layout.family}, {.steps = kSteps});
  const Training many = train_on_nccl(GetParam());
  const TrainingDifference difference = compare(one, many);
  EXPECT_TRUE(difference.loss <= kLossTolerance) << "loss differs by " << difference.loss;
  EXPECT_TRUE(difference.weight <= kWeightTolerance) << difference.worst_weight << " by " << difference.weight;
  EXPECT_EQ(one.loads, many.loads);
}

std::vector<Case> cases() {
  const std::string pp2 = "--distributed.pp_size=2", ep2 = "--distributed.ep_size=2";
  const auto batch = [](int sequences) { return fmt::format("--step_scheduler.local_batch_size={}", sequences); };
  const std::string schedule = "--distributed.pipeline.pp_schedule=";
  const Layout pipelined{"pp2_ep2_fsdp2", 4, {pp2, ep2, batch(2)}};
  std::vector<Case> all = {
      {pipelined, {}},
      {pipelined, {1, 1, 1, 1}},
      {pipelined, {2, 2}},
      {{"hsdp2x2_ep2", 4, {"--distributed.dp_replicate_size=2", ep2}}, {1, 3}},
      {{"pp4_uneven_batches", 4, {"--distributed.pp_size=4", batch(2)}, "kimi_k2"}, {1, 2, 1}},
      {{"zb_h1_pp2_ep2", 4, {pp2, ep2, batch(4), schedule + "zb_h1"}, "gpt_oss"}, {2, 2}},
      // The last stage sends gradients of the embedding to the first one, which is its neighbour on the ring.
      {{"mtp_pp2_vp2",
        2,
        {pp2, batch(8), schedule + "interleaved1f1b", "--distributed.pipeline.virtual_stages=2"},
        "deepseek_v3_mtp"},
       {1, 1}}};
  for (Case& each : all) {
    for (const int ranks : each.processes) each.layout.name += "_" + std::to_string(ranks);
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Layouts, NcclTraining, testing::ValuesIn(cases()),
                         [](const auto& param) { return param.param.layout.name; });

}  // namespace
}  // namespace sluice::test
