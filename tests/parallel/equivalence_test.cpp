// Every parallel axis is equal to one rank: losses within 1e-10 and weights within 1e-9 after five steps in f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "support/training.h"

namespace sluice::test {
namespace {

constexpr double kLossTolerance = 1e-10;
constexpr double kWeightTolerance = 1e-9;

std::string flag(const std::string& key, const std::string& value) {
  return "--" + key + "=" + value;
}

std::vector<Layout> layouts() {
  const std::string pp = "distributed.pp_size";
  const std::string ep = "distributed.ep_size";
  const std::string schedule = "distributed.pipeline.pp_schedule";
  const std::string virtual_stages = "distributed.pipeline.virtual_stages";
  const std::string reshard = "distributed.moe.reshard_after_forward";
  const std::string local = "step_scheduler.local_batch_size";
  return {
      {"fsdp2", 2, {}},
      {"fsdp4", 4, {}},
      {"fsdp4_reshard", 4, {flag(reshard, "true")}},
      {"hsdp2x2", 4, {flag("distributed.dp_replicate_size", "2")}},
      {"ep2", 2, {flag(ep, "2")}},
      {"ep4_shard2", 8, {flag(ep, "4")}},
      {"ep4_shard2_reshard", 8, {flag(ep, "4"), flag(reshard, "true")}},
      {"ep2_shard2_reshard_experts", 4, {flag(ep, "2"), flag("distributed.moe.experts_reshard_after_forward", "true")}},
      {"pp2", 2, {flag(pp, "2"), flag(local, "8")}},
      {"pp4_uneven_batches", 4, {flag(pp, "4"), flag(local, "2")}},
      {"pp2_vp2", 2, {flag(pp, "2"), flag(local, "8"), flag(schedule, "interleaved1f1b"), flag(virtual_stages, "2")}},
      {"zb_h1_pp4", 4, {flag(pp, "4"), flag(local, "8"), flag(schedule, "zb_h1")}},
      {"zb_h1_pp2_ep2", 4, {flag(pp, "2"), flag(ep, "2"), flag(local, "4"), flag(schedule, "zb_h1")}},
      {"pp2_ep2_fsdp2", 4, {flag(pp, "2"), flag(ep, "2"), flag(local, "4")}},
      {"pp2_ep2_fsdp4_reshard", 8, {flag(pp, "2"), flag(ep, "2"), flag(local, "2"), flag(reshard, "true")}},
  };
}

// How tokens find experts. The skewed gate leaves experts empty; the learned router decides by the data.
std::vector<std::pair<std::string, std::vector<std::string>>> routings() {
  return {{"router", {"--benchmark.balance=router"}},
          {"published", {"--benchmark.balance=published"}},
          {"skewed", {"--benchmark.balance=skewed", "--benchmark.skew=3.5"}}};
}

// Runs of one rank are made once.
const Training& known_training(const std::string& name, const Layout& layout, const TrainingOptions& options) {
  static std::map<std::string, Training> known;
  const auto found = known.find(name);
  if (found != known.end()) return found->second;
  return known[name] = train(layout, options);
}

const Training& one_rank(const std::string& family, const std::string& routing,
                         const std::vector<std::string>& overrides) {
  return known_training(family + " " + routing, {"one", 1, overrides, family}, {});
}

const Training& untrained(const std::string& family) {
  return known_training(family, {"start", 1, {"--benchmark.balance=router"}, family}, {.steps = 0});
}

class Equivalence : public ::testing::TestWithParam<Layout> {};

// With collectives inline and on threads of their own.
TEST_P(Equivalence, LossesAndWeightsAreThoseOfOneRank) {
  const Layout& layout = GetParam();
  int compared = 0;
  for (const auto& [routing, overrides] : routings()) {
    const Training& one = one_rank(layout.family, routing, overrides);
    Layout routed = layout;
    routed.overrides.insert(routed.overrides.end(), overrides.begin(), overrides.end());
    for (const bool async_comm : {false, true}) {
      SCOPED_TRACE(routing + (async_comm ? ", collectives on threads" : ", collectives inline"));
      const Training many = train(routed, {.async_comm = async_comm});
      const TrainingDifference difference = compare(one, many);
      EXPECT_TRUE(difference.loss <= kLossTolerance) << "loss differs by " << difference.loss;
      EXPECT_TRUE(difference.weight <= kWeightTolerance) << difference.worst_weight << " by " << difference.weight;
      // The comparison means something only if training moved the weights by far more than the tolerance.
      EXPECT_GT(compare(untrained(layout.family), many).weight, 1e-2);
      // Counts are whole numbers.
      EXPECT_EQ(one.loads, many.loads);
      ++compared;
    }
  }
  EXPECT_EQ(compared, 3 * 2);
}

INSTANTIATE_TEST_SUITE_P(Layouts, Equivalence, ::testing::ValuesIn(layouts()),
                         [](const auto& instance) { return instance.param.name; });

// Which layouts every test run tries on the other families: one of each axis.
bool on_each_axis(const Layout& layout) {
  return layout.name == "hsdp2x2" || layout.name == "ep2_shard2_reshard_experts" || layout.name == "pp2_vp2" ||
         layout.name == "zb_h1_pp2_ep2";
}

std::vector<Layout> family_layouts(bool each_axis) {
  std::vector<Layout> all;
  for (const std::string& family : tiny_families()) {
    if (family == "qwen3_moe") continue;
    for (const Layout& layout : layouts()) {
      if (on_each_axis(layout) != each_axis) continue;
      all.push_back({family + "_" + layout.name, layout.ranks, layout.overrides, family});
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(Families, Equivalence, ::testing::ValuesIn(family_layouts(true)),
                         [](const auto& instance) { return instance.param.name; });
INSTANTIATE_TEST_SUITE_P(SweepFamilies, Equivalence, ::testing::ValuesIn(family_layouts(false)),
                         [](const auto& instance) { return instance.param.name; });

// Together every family on every layout.
TEST(Equivalence, CoversEveryFamily) {
  EXPECT_EQ(tiny_families(), (std::vector<std::string>{"deepseek_v3", "gpt_oss", "kimi_k2", "qwen3_moe"}));
  EXPECT_EQ(family_layouts(true).size(), 3 * 4U);
  EXPECT_EQ(family_layouts(true).size() + family_layouts(false).size(), 3 * layouts().size());
}

// The head on the last stage is the first one's embedding, and some layers have no experts.
std::vector<Layout> mixed_layouts() {
  std::vector<Layout> all;
  for (const Layout& layout : layouts()) {
    if (layout.name != "fsdp4_reshard" && layout.name != "pp2_vp2" && layout.name != "zb_h1_pp2_ep2" &&
        layout.name != "pp2_ep2_fsdp4_reshard") {
      continue;
    }
    all.push_back({"mixed_" + layout.name, layout.ranks, layout.overrides, "qwen3_moe_mixed"});
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(MixedLayers, Equivalence, ::testing::ValuesIn(mixed_layouts()),
                         [](const auto& instance) { return instance.param.name; });

// The extra layer is on the last stage and reads the first one's embedding.
std::vector<Layout> mtp_layouts() {
  std::vector<Layout> all;
  for (const Layout& layout : layouts()) {
    if (layout.name != "fsdp4_reshard" && layout.name != "hsdp2x2" && layout.name != "pp2" &&
        layout.name != "zb_h1_pp2_ep2" && layout.name != "pp2_vp2" && layout.name != "pp2_ep2_fsdp4_reshard") {
      continue;
    }
    all.push_back({"mtp_" + layout.name, layout.ranks, layout.overrides, "deepseek_v3_mtp"});
  }
  all.push_back({"mtp_pp2_recomputed",
                 2,
                 {"--distributed.pp_size=2", "--step_scheduler.local_batch_size=8", "--memory.recompute=full"},
                 "deepseek_v3_mtp"});
  return all;
}

INSTANTIATE_TEST_SUITE_P(Mtp, Equivalence, ::testing::ValuesIn(mtp_layouts()),
                         [](const auto& instance) { return instance.param.name; });

// What only gradients know of: the balance loss over the global batch and both z-losses, on each axis.
TEST(Losses, AreThoseOfOneRankOnEveryLayout) {
  const std::vector<std::string> losses = {"--benchmark.balance=router", "--model.aux_loss_coef=0.1",
                                           "--model.aux_loss_over=global_batch", "--model.router_z_loss_coef=0.05",
                                           "--loss_fn.z_loss_coef=0.05"};
  int compared = 0;
  for (const std::string family : {"qwen3_moe", "deepseek_v3_mtp"}) {
    const Training& one = one_rank(family, "losses", losses);
    const Training without = train({"one", 1, {losses.front(), "--model.aux_loss_coef=0"}, family}, {});
    EXPECT_GT(compare(without, one).loss, 1e-4) << "the losses change too little";
    for (Layout layout : layouts()) {
      if (!on_each_axis(layout)) continue;
      layout.family = family;
      layout.overrides.insert(layout.overrides.end(), losses.begin(), losses.end());
      layout.overrides.emplace_back("--memory.recompute=full");
      const Training many = train(layout, {});
      const TrainingDifference difference = compare(one, many);
      EXPECT_TRUE(difference.loss <= kLossTolerance) << layout.name << ": loss differs by " << difference.loss;
      EXPECT_TRUE(difference.weight <= kWeightTolerance)
          << layout.name << ": " << difference.worst_weight << " by " << difference.weight;
      EXPECT_EQ(one.loads, many.loads) << layout.name;
      for (const auto& [name, values] : one.weights) {
        if (!name.ends_with("load_share")) continue;
        EXPECT_EQ(values, many.weights.at(name)) << layout.name << " " << name;
        EXPECT_NEAR(std::accumulate(values.begin(), values.end(), 0.0), 1, 1e-12) << name;
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 4 * 4 + 4 * 4);
}

// Counts of a step, and what it adds to a selection bias, are whole numbers: equal bits on every layout.
TEST(SelectionBias, IsTheSameOnEveryLayoutAndMoves) {
  const std::vector<std::string> router = {"--benchmark.balance=router"};
  int compared = 0;
  for (Layout layout : family_layouts(true)) {
    if (layout.family != "deepseek_v3" && layout.family != "kimi_k2") continue;
    layout.overrides.insert(layout.overrides.end(), router.begin(), router.end());
    layout.overrides.emplace_back("--memory.recompute=full");
    const Training many = train(layout, {});
    for (const auto& [name, values] : one_rank(layout.family, "router", router).weights) {
      if (!name.ends_with("selection_bias")) continue;
      EXPECT_EQ(values, many.weights.at(name)) << layout.name << " " << name;
      EXPECT_TRUE(std::ranges::any_of(values, [](double v) { return v > 1e-4; })) << name;
      EXPECT_TRUE(std::ranges::any_of(values, [](double v) { return v < -1e-4; })) << name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 2 * 4 * 3);
}

class RecomputeEquivalence : public ::testing::TestWithParam<Layout> {};

TEST_P(RecomputeEquivalence, IsBitIdenticalToKeepingEverything) {
  int compared = 0;
  for (const auto& [routing, overrides] : routings()) {
    Layout keeping = GetParam();
    keeping.overrides.insert(keeping.overrides.end(), overrides.begin(), overrides.end());
    const Training kept = train(keeping, {.steps = 2});
    for (const char* pieces : {"selective", "full", "[norm]", "[qk_rope]", "[act]", "[experts]", "[dispatch]",
                               "[norm, qk_rope, act, experts, dispatch]"}) {
      SCOPED_TRACE(routing + " " + pieces);
      Layout recomputing = keeping;
      recomputing.overrides.push_back(flag("memory.recompute", pieces));
      const TrainingDifference difference = compare(kept, train(recomputing, {.steps = 2}));
      EXPECT_TRUE(difference.loss == 0) << difference.loss;
      EXPECT_TRUE(difference.weight == 0) << difference.worst_weight << " by " << difference.weight;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 3 * 8);
}

INSTANTIATE_TEST_SUITE_P(
    Bases, RecomputeEquivalence,
    ::testing::Values(Layout{"one", 1, {}}, Layout{"ep2", 2, {flag("distributed.ep_size", "2")}},
                      Layout{"zb_h1_pp2",
                             2,
                             {flag("distributed.pp_size", "2"), flag("step_scheduler.local_batch_size", "8"),
                              flag("distributed.pipeline.pp_schedule", "zb_h1")}},
                      Layout{"deepseek_v3", 1, {}, "deepseek_v3"}, Layout{"gpt_oss", 1, {}, "gpt_oss"}),
    [](const auto& instance) { return instance.param.name; });

}  // namespace
}  // namespace sluice::test
