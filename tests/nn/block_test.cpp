#include "nn/block.h"

#include <gtest/gtest.h>

#include "block_rig.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  RecomputePolicy recompute;
  bool defer = false;
  BlockKind kind;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

void expect_sound(const Case& c) {
  TestContext tc(DType::f64);
  BlockRig rig(tc, c.kind);
  const MutationReport report =
      check_gradients(tc, rig.program(c.recompute, c.defer), {.equivalent = router_equivalents()});
  std::vector<Unused> known;
  const auto expect_unused = [&](const std::vector<Unused>& more) {
    known.insert(known.end(), more.begin(), more.end());
  };
  if (c.recompute.any()) expect_unused(unused_when_rebuilding());
  if (c.kind.router == RouterKind::forced) expect_unused(unused_when_forced());
  if (c.kind.router == RouterKind::sigmoid_topk) expect_unused(unused_load());
  expect_known(report, known);
}

RecomputePolicy pieces(unsigned bits) {
  RecomputePolicy policy;
  for (const RecomputePiece& piece : kRecomputePieces) {
    policy.*piece.on = (bits & 1) != 0;
    bits >>= 1;
  }
  return policy;
}
constexpr unsigned kSubsets = 64;
constexpr RecomputePolicy kFull{.full = true};

const BlockKind kForced{.router = RouterKind::forced};
const BlockKind kDense{.router = std::nullopt, .mlp_ffn = 3};
const BlockKind kShared{.mlp_ffn = 3};
const BlockKind kLatent{.mlp_ffn = 3, .latent = true};
const BlockKind kDenseLatent{.router = std::nullopt, .mlp_ffn = 3, .latent = true};
const BlockKind kSigmoid{.router = RouterKind::sigmoid_topk, .mlp_ffn = 3, .latent = true};
const BlockKind kBiased{.biases = true};
const BlockKind kKinds[] = {{}, kForced, kDense, kShared, kLatent, kDenseLatent, kSigmoid, kBiased};

std::vector<Case> cases() {
  return {{"kept", {}},
          {"kept_forced", {}, false, kForced},
          {"deferred", {}, true},
          {"selective", RecomputePolicy::selective()},
          {"full", kFull},
          {"full_deferred", kFull, true},
          {"full_forced", kFull, false, kForced},
          {"dense", {}, false, kDense},
          {"dense_selective_deferred", RecomputePolicy::selective(), true, kDense},
          {"dense_full", kFull, false, kDense},
          {"shared", {}, false, kShared},
          {"shared_selective", RecomputePolicy::selective(), false, kShared},
          {"shared_full_deferred", kFull, true, kShared},
          {"latent", {}, false, kLatent},
          {"latent_selective_deferred", RecomputePolicy::selective(), true, kLatent},
          {"latent_full", kFull, false, kLatent},
          {"sigmoid", {}, false, kSigmoid},
          {"sigmoid_selective_deferred", RecomputePolicy::selective(), true, kSigmoid},
          {"sigmoid_full", kFull, false, kSigmoid},
          {"biased", {}, false, kBiased},
          {"biased_selective_deferred", RecomputePolicy::selective(), true, kBiased},
          {"biased_full", kFull, false, kBiased}};
}

class BlockModule : public testing::TestWithParam<Case> {};
TEST_P(BlockModule, Gradients) {
  expect_sound(GetParam());
}
INSTANTIATE_TEST_SUITE_P(Cases, BlockModule, testing::ValuesIn(cases()),
                         [](const auto& instance) { return instance.param.name; });

TEST(BlockModuleSweep, GradientsOfEveryRecomputePolicy) {
  for (const BlockKind& kind : kKinds) {
    for (const bool defer : {false, true}) {
      for (unsigned bits = 0; bits < kSubsets; ++bits) {
        SCOPED_TRACE("pieces " + std::to_string(bits));
        expect_sound({"", pieces(bits), defer, kind});
      }
      expect_sound({"", kFull, defer, kind});
    }
  }
}

TEST(BlockRecompute, EveryPolicyIsBitIdenticalToKeepingEverything) {
  int compared = 0;
  for (const BlockKind& kind : kKinds) {
    TestContext tc(DType::f64);
    BlockRig rig(tc, kind);
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
  EXPECT_EQ(compared, 8 * 2 * 65);
}

}  // namespace
}  // namespace sluice::test
