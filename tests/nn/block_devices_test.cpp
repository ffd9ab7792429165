// Whole blocks, forward, backward and weight gradients, on every backend: held to `ref` in the same storage type.
#include <gtest/gtest.h>

#include "block_rig.h"
#include "support/compare.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  BlockKind kind;
  RecomputePolicy recompute;
  bool defer = false;
};

struct DeviceCase {
  Case block;
  BackendCase backend;
  friend std::ostream& operator<<(std::ostream& out, const DeviceCase& c) {
    return out << c.block.name << " on " << c.backend.name;
  }
};

std::vector<DeviceCase> cases() {
  const BlockKind forced{.router = RouterKind::forced}, dense{.router = std::nullopt, .mlp_ffn = 3};
  const BlockKind latent{.mlp_ffn = 3, .latent = true};
  std::vector<DeviceCase> all;
  for (const BackendCase& backend : {cpu_backend(2), emulated_backend(), cuda_backend()}) {
    for (const Case& block : {Case{"router", {}, {}}, Case{"forced_deferred", forced, {}, true},
                              Case{"selective", {}, RecomputePolicy::selective()}, Case{"dense", dense, {}},
                              Case{"latent_shared_full_deferred", latent, {.full = true}, true}}) {
      all.push_back({block, backend});
    }
  }
  return all;
}

class BlockDevices : public testing::TestWithParam<DeviceCase> {
 protected:
  void SetUp() override {
    if (!GetParam().backend.missing.empty()) GTEST_SKIP() << GetParam().backend.missing;
  }

  std::vector<Result> run(DType dtype, const BackendCase& backend) {
    TestContext tc(dtype, backend);
    BlockRig rig(tc, GetParam().block.kind);
    return run_program(tc, rig.program(GetParam().block.recompute, GetParam().block.defer));
  }
};

TEST_P(BlockDevices, AgreeWithRef) {
  // Values on the longest way through a block, from its input to a gradient, that are rounded to the storage type; and
  // the longest sum, over the tokens' rows.
  constexpr int kRoundings = 24;
  constexpr int64_t kReduction = 64;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16}) {
    SCOPED_TRACE(name_of(dtype));
    const std::vector<Result> expected = run(dtype, ref_backend()), got = run(dtype, GetParam().backend);
    ASSERT_EQ(got.size(), expected.size());
    ASSERT_GT(got.size(), 5U);
    // Gradients of parameters have no rows that mean anything together: their largest error counts.
    const Tolerance allowed = global_tolerance(dtype, kReduction, kRoundings);
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_TRUE(close(got[i].values, expected[i].values, allowed)) << got[i].name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Blocks, BlockDevices, testing::ValuesIn(cases()), [](const auto& instance) {
  return instance.param.block.name + "_on_" + instance.param.backend.name;
});

}  // namespace
}  // namespace sluice::test
