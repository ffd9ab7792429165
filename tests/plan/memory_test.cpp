// The plan's memory is the run's: for a forced gate to the byte, for a learned router at the load factor.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "data/mock.h"
#include "plan/plan.h"
#include "tiny.h"

namespace sluice::test {
namespace {

struct Routing {
  std::string name;
  GateSpec gate;  // kind and what belongs to it
};

std::vector<Routing> routings() {
  return {{"published", {.kind = GateKind::published}},
          {"noisy", {.kind = GateKind::published, .noise = 0.5}},
          {"spread", {.kind = GateKind::spread}},
          {"skewed_with_empty_experts", {.kind = GateKind::skewed, .skew = 3.5, .idle = 3}}};
}

RunSpec routed(RunSpec spec, const Routing& routing) {
  spec.router = RouterKind::forced;
  spec.gate.kind = routing.gate.kind;
  spec.gate.noise = routing.gate.noise;
  spec.gate.skew = routing.gate.skew;
  spec.gate.idle = routing.gate.idle;
  return spec;
}

void expect_same_memory(const RunSpec& spec, const RankPlan& plan, Trainer& trainer) {
  EXPECT_EQ(trainer.ledger().peak(), plan.ledger.peak());
  for (size_t k = 0; k < kMemoryKinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    EXPECT_EQ(trainer.ledger().at_peak(kind), plan.ledger.at_peak(kind)) << name_of(kind);
  }
  EXPECT_EQ(trainer.ledger().allocations(), plan.ledger.allocations());
  EXPECT_TRUE(trainer.runtime().grown().empty());
  // What the arenas held at their fullest, by name.
  EXPECT_EQ(trainer.runtime().arena_sizes(), plan.sizes);
  EXPECT_GT(trainer.ledger().at_peak(MemoryKind::activations) + trainer.ledger().at_peak(MemoryKind::scratch), 0U);
  EXPECT_EQ(trainer.ledger().at_peak(MemoryKind::communication), 0U) << "of " << spec.mesh.world << " ranks";
}

// Runs all steps on every rank and holds each to its plan; returns how many ranks were compared.
int compare_with_plan(const RunSpec& spec, const LaunchOptions& options) {
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  std::mutex mutex;
  int compared = 0;
  run_session(spec, options, dataset, [&](Trainer& trainer) {
    trainer.step(0);
    const int64_t allocations = trainer.ledger().allocations();
    for (int64_t step = 1; step < spec.steps; ++step) trainer.step(step);
    const RankPlan plan =
        plan_rank(spec, trainer.mesh().world.rank(), {.target = trainer.context().backend().target()}, {});
    const std::lock_guard lock(mutex);
    SCOPED_TRACE(fmt::format("rank {}", trainer.mesh().world.rank()));
    EXPECT_EQ(trainer.ledger().allocations(), allocations) << "something was allocated after the first step";
    expect_same_memory(spec, plan, trainer);
    ++compared;
  });
  return compared;
}

class PlannedMemory : public ::testing::TestWithParam<Layout> {};

TEST_P(PlannedMemory, IsThatOfARunWithAForcedGate) {
  for (const Routing& routing : routings()) {
    SCOPED_TRACE(routing.name);
    const RunSpec spec = routed(tiny_spec(GetParam()), routing);
    EXPECT_EQ(compare_with_plan(spec, {.device = DeviceKind::cpu, .threads = 2}), spec.mesh.world);
  }
}

TEST_P(PlannedMemory, IsThatOfARunInDoublePrecision) {
  Layout layout = GetParam();
  layout.overrides.emplace_back("--runtime.dtype=f64");
  const RunSpec spec = routed(tiny_spec(layout), routings().back());
  EXPECT_EQ(compare_with_plan(spec, {.device = DeviceKind::ref}), spec.mesh.world);
}

TEST_P(PlannedMemory, IsThatOfARunInBf16) {
  Layout layout = GetParam();
  layout.overrides.emplace_back("--runtime.dtype=bf16");
  const RunSpec spec = routed(tiny_spec(layout), routings().back());
  EXPECT_EQ(compare_with_plan(spec, {.device = DeviceKind::cpu, .threads = 2}), spec.mesh.world);
}

// A published gate whose period does not divide the sequence: counts differ from micro-batch to micro-batch.
TEST_P(PlannedMemory, IsThatOfARunWithOddSequences) {
  Layout layout = GetParam();
  layout.overrides.emplace_back("--dataset.seq_len=13");
  layout.overrides.emplace_back("--model.config.num_experts_per_tok=3");
  const RunSpec spec = routed(tiny_spec(layout), routings().front());
  EXPECT_EQ(compare_with_plan(spec, {.device = DeviceKind::cpu}), spec.mesh.world);
}

INSTANTIATE_TEST_SUITE_P(Layouts, PlannedMemory, ::testing::ValuesIn(tiny_layouts()),
                         [](const auto& tested) { return tested.param.name; });

struct NarrowCase {
  std::string family;
  std::string state;
  friend std::ostream& operator<<(std::ostream& out, const NarrowCase& c) {
    return out << c.family << "_with_state_" << c.state;
  }
};

class PlannedMemoryInBf16 : public ::testing::TestWithParam<NarrowCase> {};

TEST_P(PlannedMemoryInBf16, IsThatOfARunWhateverIsRecomputed) {
  for (const char* pieces : {"none", "selective", "full", "[norm, qk_rope, act, experts, dispatch]"}) {
    SCOPED_TRACE(pieces);
    const RunSpec spec =
        tiny_spec({"ep2",
                   2,
                   {"--runtime.dtype=bf16", "--distributed.ep_size=2", fmt::format("--memory.recompute={}", pieces),
                    "--optimizer.state_dtype=" + GetParam().state},
                   GetParam().family});
    EXPECT_EQ(spec.dtype, DType::bf16);
    EXPECT_EQ(compare_with_plan(spec, {.device = DeviceKind::cpu, .threads = 3}), 2);
  }
}

std::vector<NarrowCase> narrow_cases() {
  std::vector<NarrowCase> all = {{"deepseek_v3_mtp", "fp32"}};
  for (const std::string& family : tiny_families()) {
    for (const char* state : {"fp32", "bf16"}) all.push_back({family, state});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Families, PlannedMemoryInBf16, ::testing::ValuesIn(narrow_cases()),
                         ::testing::PrintToStringParamName());

// Rows are padded there, and scratch is what its kernels want.
class PlannedMemoryOnGpu : public ::testing::TestWithParam<GpuCase> {
 protected:
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }
};

TEST_P(PlannedMemoryOnGpu, IsThatOfARun) {
  for (const Layout& layout : {tiny_layouts().front(), tiny_layouts()[10]}) {
    SCOPED_TRACE(layout.name);
    const RunSpec spec = routed(tiny_spec(layout), routings().back());
    EXPECT_EQ(compare_with_plan(spec, {.hardware = GetParam().hardware}), spec.mesh.world);
  }
}

INSTANTIATE_TEST_SUITE_P(Gpus, PlannedMemoryOnGpu, testing::Values(emulated_gpu(), real_gpu()),
                         [](const auto& tested) { return "all_on_" + tested.param.name; });

TEST(LearnedRouter, MemoryIsThePlansAtTheLoadFactor) {
  const RunSpec spec = tiny_spec({"ep4",
                                  4,
                                  {"--distributed.ep_size=4", "--benchmark.balance=router", "--memory.load_factor=4",
                                   "--step_scheduler.local_batch_size=2"}});
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  std::atomic<int> compared = 0;
  run_session(spec, {}, dataset, [&](Trainer& trainer) {
    for (int64_t step = 0; step < spec.steps; ++step) trainer.step(step);
    const RankPlan plan = plan_rank(spec, trainer.mesh().world.rank(), {.target = {.workers = 1}}, {});
    EXPECT_TRUE(trainer.runtime().grown().empty());
    EXPECT_EQ(trainer.ledger().peak(), plan.ledger.peak());
    for (const auto& [name, bytes] : trainer.runtime().arena_sizes()) EXPECT_LE(bytes, plan.sizes.at(name)) << name;
    ++compared;
  });
  EXPECT_EQ(compared, 4);
}

TEST(LearnedRouter, GrowthBeyondTheLoadFactorIsReported) {
  const RunSpec spec = tiny_spec({"ep4",
                                  4,
                                  {"--distributed.ep_size=4", "--benchmark.balance=router", "--memory.load_factor=1",
                                   "--step_scheduler.local_batch_size=2"}});
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  std::mutex mutex;
  int grown = 0;
  int planned = 0;
  run_session(spec, {}, dataset, [&](Trainer& trainer) {
    for (int64_t step = 0; step < spec.steps; ++step) trainer.step(step);
    const RankPlan plan = plan_rank(spec, trainer.mesh().world.rank(), {.target = {.workers = 1}}, {});
    const std::lock_guard lock(mutex);
    const std::vector<ArenaGrowth> list = trainer.runtime().grown();
    size_t bytes = 0;
    // Reported exactly where more was taken.
    EXPECT_EQ(list.empty(), trainer.ledger().peak() == plan.ledger.peak());
    EXPECT_GE(trainer.ledger().peak(), plan.ledger.peak());
    for (const ArenaGrowth& growth : list) {
      EXPECT_GT(growth.chunks, 0) << growth.arena;
      EXPECT_GT(growth.bytes, 0U) << growth.arena;
      bytes += growth.bytes;
    }
    EXPECT_EQ(trainer.ledger().peak(), plan.ledger.peak() + bytes);
    ++(list.empty() ? planned : grown);
  });
  EXPECT_EQ(grown + planned, 4);
  EXPECT_GT(grown, 0) << "this model's routing is uneven";
}

// A step beyond the run's is planned for where it is announced: its routing differs from the others'.
TEST(ForcedGate, FurtherStepsHaveTheirPlaceInThePlan) {
  RunSpec spec = tiny_spec({"ep2", 2, {"--distributed.ep_size=2", "--model.backend.fake_gate_noise=0.5"}});
  spec.steps = 1;
  const auto sizes = [&](int64_t further) {
    spec.further_steps = further;
    return plan_rank(spec, 0, {}, {}).sizes;
  };
  const ArenaSizes alone = sizes(0), with_more = sizes(8);
  ASSERT_EQ(alone.size(), with_more.size());
  EXPECT_NE(alone, with_more);
  for (const auto& [name, bytes] : alone) EXPECT_LE(bytes, with_more.at(name)) << name;
}

// On one rank of experts nothing depends on the routing.
TEST(LearnedRouter, OneExpertRankIsPlannedExactly) {
  for (const std::string& family : tiny_families()) {
    SCOPED_TRACE(family);
    const RunSpec spec = tiny_spec({"fsdp2", 2, {"--benchmark.balance=router"}, family});
    EXPECT_EQ(compare_with_plan(spec, {}), 2);
  }
}

TEST(Plan, FullestStageIsTheFullestRankOfTheRun) {
  const RunSpec spec = routed(tiny_spec(tiny_layouts()[10]), routings().back());
  ASSERT_EQ(spec.mesh.pp, 2);
  ASSERT_EQ(spec.mesh.ep, 2);
  Profile profile;
  profile.device.target = {.workers = 1};
  const Plan plan = make_plan(spec, profile, Detail::memory_peaks);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  std::mutex mutex;
  size_t fullest = 0;
  run_session(spec, {}, dataset, [&](Trainer& trainer) {
    trainer.step(0);
    const std::lock_guard lock(mutex);
    fullest = std::max(fullest, trainer.ledger().peak());
  });
  EXPECT_EQ(plan.peak_bytes(), fullest);
  const MemoryPeak& peak = plan.fullest().peak;
  EXPECT_FALSE(peak.action.empty());
  ASSERT_FALSE(peak.largest.empty());
  EXPECT_NE(peak.largest.front().name, "other") << "an operation of a model is of a kind that has a word";
  size_t held = 0;
  for (const MemoryPeak::Holder& holder : peak.largest) held += holder.bytes;
  EXPECT_LE(held, peak.bytes);
  EXPECT_GT(held, peak.bytes / 4);
}

}  // namespace
}  // namespace sluice::test
