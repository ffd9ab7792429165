#include "nn/block.h"

#include <gtest/gtest.h>

#include "block_rig.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  RecomputePolicy recompute;
  bool defer = false;
  std::optional<RouterKind> router = RouterKind::softmax_topk;  // none: no experts
  int64_t mlp_ffn = 0;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

void expect_sound(const Case& c) {
  TestContext tc(DType::f64);
  BlockRig rig(tc, c.router, c.mlp_ffn);
  const MutationReport report =
      check_gradients(tc, rig.program(c.recompute, c.defer), {.equivalent = router_equivalents()});
  std::vector<Unused> known;
  if (c.recompute.any()) known = unused_when_rebuilding();
  for (const Unused& unused : c.router == RouterKind::forced ? unused_when_forced() : std::vector<Unused>{}) {
    known.push_back(unused);
  }
  expect_known(report, known);
}

RecomputePolicy pieces(unsigned bits) {
  return {(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0, false};
}
constexpr unsigned kSubsets = 32;
constexpr RecomputePolicy kFull{.full = true};

struct Kind {
  std::optional<RouterKind> router;
  int64_t mlp_ffn;
};
const Kind kKinds[] = {
    {RouterKind::softmax_topk, 0}, {RouterKind::forced, 0}, {std::nullopt, 3}, {RouterKind::softmax_topk, 3}};

std::vector<Case> cases() {
  return {{"kept", {}},
          {"kept_forced", {}, false, RouterKind::forced},
          {"deferred", {}, true},
          {"selective", RecomputePolicy::selective()},
          {"full", kFull},
          {"full_deferred", kFull, true},
          {"full_forced", kFull, false, RouterKind::forced},
          {"dense", {}, false, std::nullopt, 3},
          {"dense_selective_deferred", RecomputePolicy::selective(), true, std::nullopt, 3},
          {"dense_full", kFull, false, std::nullopt, 3},
          {"shared", {}, false, RouterKind::softmax_topk, 3},
          {"shared_selective", RecomputePolicy::selective(), false, RouterKind::softmax_topk, 3},
          {"shared_full_deferred", kFull, true, RouterKind::softmax_topk, 3}};
}

class BlockModule : public testing::TestWithParam<Case> {};
TEST_P(BlockModule, Gradients) {
  expect_sound(GetParam());
}
INSTANTIATE_TEST_SUITE_P(Cases, BlockModule, testing::ValuesIn(cases()),
                         [](const auto& instance) { return instance.param.name; });

TEST(BlockModuleSweep, GradientsOfEveryRecomputePolicy) {
  for (const Kind& kind : kKinds) {
    for (const bool defer : {false, true}) {
      for (unsigned bits = 0; bits < kSubsets; ++bits) {
        SCOPED_TRACE("pieces " + std::to_string(bits));
        expect_sound({"", pieces(bits), defer, kind.router, kind.mlp_ffn});
      }
      expect_sound({"", kFull, defer, kind.router, kind.mlp_ffn});
    }
  }
}

TEST(BlockRecompute, EveryPolicyIsBitIdenticalToKeepingEverything) {
  int compared = 0;
  for (const Kind& kind : kKinds) {
    TestContext tc(DType::f64);
    BlockRig rig(tc, kind.router, kind.mlp_ffn);
    const std::vector<Result> kept = run_program(tc, rig.program({}, false));
    for (unsigned bits = 0; bits <= kSubsets; ++bits) {
      for (const bool defer : {false, true}) {
        SCOPED_TRACE("pieces " + std::to_string(bits) + (defer ? ", deferred" : ""));
        OutputPoison poison;
        const RecomputePolicy recompute = bits == kSubsets ? kFull : pieces(bits);
        const std::vector<Result> rebuilt = run_program(tc, rig.program(recompute, defer), 1, &poison);
        ASSERT_EQ(rebuilt.size(), kept.size());
        for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(rebuilt[i].values, kept[i].values) << kept[i].name;
        ++compared;
      }
    }
  }
  EXPECT_EQ(compared, 4 * 2 * 33);
}

}  // namespace
}  // namespace sluice::test
