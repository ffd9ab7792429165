#include "comm/meta/network.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

namespace sluice {
namespace {

// 4 ranks a node, 100 B/s inside, 10 B/s between.
const NetworkModel kNetwork{
    .ranks_per_node = 4,
    .intra = {.latency_s = 0.001, .bandwidth_bytes_per_s = 100},
    .inter = {.latency_s = 0.01, .bandwidth_bytes_per_s = 10},
};

std::vector<int> every(int first, int step, int count) {
  std::vector<int> ranks;
  for (int i = 0; i < count; ++i) ranks.push_back(first + i * step);
  return ranks;
}

TEST(Network, LinksAreChosenByNode) {
  EXPECT_EQ(kNetwork.link(0, 3).bandwidth_bytes_per_s, 100);
  EXPECT_EQ(kNetwork.link(3, 4).bandwidth_bytes_per_s, 10);
  EXPECT_EQ(NetworkModel().link(0, 100000).latency_s, 0);
}

TEST(Network, AGroupWithinANodeIsARing) {
  const GroupCost cost(kNetwork, every(4, 1, 4), 1);
  EXPECT_DOUBLE_EQ(cost.all_gather(400), 0.002 + 400 * 0.75 / 100);
  EXPECT_DOUBLE_EQ(cost.all_reduce(400), 2 * cost.all_gather(400));
  EXPECT_DOUBLE_EQ(cost.broadcast(400), 0.002 + 4);
  EXPECT_DOUBLE_EQ(cost.barrier(), 0.002);
}

TEST(Network, AGroupAcrossNodesUsesAllItsLinks) {
  // One rank on each of 4 nodes: everything passes its own link.
  const GroupCost one_each(kNetwork, every(2, 4, 4), 0);
  EXPECT_DOUBLE_EQ(one_each.all_gather(400), 0.02 + 400 * 0.75 / 10);
  // Two full nodes: half of the data enters a node through four links, slower than passing round inside.
  const GroupCost two_nodes(kNetwork, every(0, 1, 8), 5);
  EXPECT_DOUBLE_EQ(two_nodes.all_gather(800), 0.002 + 0.01 + 800.0 / 2 / 40);
  EXPECT_DOUBLE_EQ(two_nodes.broadcast(800), 0.012 + 800.0 / 40);
}

TEST(Network, AllToAllIsTheSlowerOfItsLinks) {
  const GroupCost cost(kNetwork, {0, 1, 4, 5}, 1);
  const double latency = 0.001 + 0.01;
  // To itself 1000, inside 200, between 30 out; 50 and 60 in.
  EXPECT_DOUBLE_EQ(cost.all_to_all(std::array{200.0, 1000.0, 10.0, 20.0}, std::array{10.0, 1000.0, 25.0, 35.0}),
                   latency + 6);
  EXPECT_DOUBLE_EQ(cost.all_to_all(std::array{900.0, 0.0, 0.0, 0.0}, std::array{0.0, 0.0, 0.0, 1.0}), latency + 9);
  EXPECT_DOUBLE_EQ(cost.all_to_all(std::array{0.0, 0.0, 0.0, 0.0}, std::array{0.0, 0.0, 0.0, 0.0}), latency);
}

}  // namespace
}  // namespace sluice
