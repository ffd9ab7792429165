// The step of selection biases against its closed form: an expert with more than its share of the slots loses the rate,
// one with less gains it, one with exactly its share stays. And that of the shares themselves.
#include "optim/router_balance.h"

#include <gtest/gtest.h>

#include <mutex>

#include "comm/inproc/inproc.h"
#include "rig.h"
#include "support/compare.h"

namespace sluice::test {
namespace {

struct Case {
  std::string name;
  MeshSpec mesh;
};

class RouterBalance : public testing::TestWithParam<Case> {};

// 24 tokens choose 3 of 12 experts: the share is 6.
TEST_P(RouterBalance, MovesBiasesByTheRateAgainstTheLoadOfAllRanks) {
  const std::vector<double> loads = {6, 7, 5, 6, 0, 24, 6, 8, 4, 6, 0, 0};
  const std::vector<double> signs = {0, -1, 1, 0, 1, -1, 0, -1, 1, 0, 1, 1};
  run_ranks(GetParam().mesh.world, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    Mesh mesh(GetParam().mesh, world);
    OneParam bias(tc, mesh, {.name = "bias", .shape = {12}, .init = InitKind::zeros, .balanced_top_k = 3});
    OneParam trained(tc, mesh, {.name = "w", .shape = {12}, .init = InitKind::ones});
    const auto before = [](int64_t e) { return 0.5 - 0.25 * static_cast<double>(e); };
    bias.set_values(before);
    EXPECT_EQ(bias.gathered()[3], before(3));
    for (OneParam* param : {&bias, &trained}) {
      param->reduce([&](int64_t e) { return loads[static_cast<size_t>(e)]; });
    }
    for (int step = 1; step <= 3; ++step) {
      balance_routers(*tc, {&trained.group(), &bias.group()}, 24, 0.001);
      // The gathered copy is made anew.
      const std::vector<double> after = bias.gathered();
      for (int64_t e = 0; e < 12; ++e) {
        const double sign = signs[static_cast<size_t>(e)];
        if (sign == 0) {
          EXPECT_EQ(after[static_cast<size_t>(e)], before(e)) << "expert " << e;
        } else {
          EXPECT_NEAR(after[static_cast<size_t>(e)], before(e) + step * 0.001 * sign, 1e-15) << "expert " << e;
        }
      }
      EXPECT_EQ(trained.gathered(), std::vector<double>(12, 1));
    }
  });
}

// The same slots as shares, twice: a step's follow from its own loads alone.
TEST_P(RouterBalance, SetsSharesToThoseOfAllRanks) {
  const std::vector<double> loads = {6, 7, 5, 6, 0, 24, 6, 8, 4, 6, 0, 0};
  run_ranks(GetParam().mesh.world, {.timeout_s = 60}, [&](Communicator& world) {
    TestContext tc(DType::f64);
    Mesh mesh(GetParam().mesh, world);
    OneParam share(
        tc, mesh, {.name = "share", .shape = {12}, .init = InitKind::zeros, .balanced_top_k = 3, .holds_shares = true});
    share.set_values([](int64_t) { return 0; });
    EXPECT_EQ(share.gathered(), std::vector<double>(12, 0));
    share.reduce([&](int64_t e) { return loads[static_cast<size_t>(e)]; });
    for (int step = 0; step < 2; ++step) {
      balance_routers(*tc, {&share.group()}, 24, 0.001);
      const std::vector<double> after = share.gathered();
      for (size_t e = 0; e < loads.size(); ++e) EXPECT_NEAR(after[e], loads[e] / 72, 1e-16) << "expert " << e;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Meshes, RouterBalance,
                         testing::Values(Case{"one_rank", {}}, Case{"sharded", {.world = 2}},
                                         Case{"replicated", {.world = 2, .dp_replicate = 2}},
                                         Case{"sharded_and_replicated", {.world = 4, .dp_replicate = 2}}),
                         [](const auto& instance) { return instance.param.name; });

// The share is of the tokens of the whole batch: it need not be a whole number, and then no expert stays.
TEST(RouterBalanceShare, IsOfSlotsNotOfTokens) {
  run_ranks(1, {.timeout_s = 60}, [](Communicator& world) {
    TestContext tc(DType::f32);
    Mesh mesh({}, world);
    OneParam bias(tc, mesh, {.name = "bias", .shape = {4}, .init = InitKind::zeros, .balanced_top_k = 2});
    // Of 5 tokens 10 slots: 2.5 each.
    const std::vector<double> loads = {2, 3, 5, 0};
    bias.reduce([&](int64_t e) { return loads[static_cast<size_t>(e)]; });
    balance_routers(*tc, {&bias.group()}, 5, 0.5);
    EXPECT_EQ(bias.gathered(), (std::vector<double>{0.5, -0.5, -0.5, 0.5}));
  });
}

// Two routers in one group, each with experts and choices of its own.
TEST(RouterBalanceGroup, GivesEachRouterItsOwnLoads) {
  run_ranks(2, {.timeout_s = 60}, [](Communicator& world) {
    TestContext tc(DType::f64);
    HostMemory memory;
    const auto bias = [](const std::string& name, int64_t experts, int64_t top_k) {
      return ParamSpec{.name = name, .shape = {experts}, .init = InitKind::zeros, .balanced_top_k = top_k};
    };
    Param four(bias("four", 4, 1), 0, 1), hundred(bias("hundred", 100, 5), 0, 1);
    FlatGroup group("biases", {&four, &hundred}, world, nullptr, {.dtype = tc.dtype()}, memory, nullptr);
    group.initialize(*tc, 1);
    group.zero_gradients(*tc);
    // 20 tokens: 5 slots each of four, 1 each of a hundred. All of it is this rank's load.
    if (world.rank() == 0) {
      std::vector<double> loads(100, 1);
      loads[0] = 0;
      loads[99] = 2;
      assign(four.grad, {5, 4, 6, 5});
      assign(hundred.grad, loads);
    }
    group.begin_reduce(*tc);
    group.end_reduce(*tc);
    balance_routers(*tc, {&group}, 20, 0.25);
    group.begin_gather(*tc);
    group.end_gather(*tc);
    EXPECT_TRUE(holds(four.value, {0, 0.25, -0.25, 0}));
    std::vector<double> expected(100, 0);
    expected[0] = 0.25;
    expected[99] = -0.25;
    EXPECT_EQ(values_of(hundred.value), expected);
  });
}

}  // namespace
}  // namespace sluice::test
