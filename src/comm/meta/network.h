// What the links between ranks cost: nodes of equal size, a fast network inside and a slower one between them.
// Times are those of bandwidth-optimal algorithms (rings that use all links of a group at once) plus one latency for
// each doubling of the group.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace sluice {

// One rank's link, each way: full duplex.
struct LinkModel {
  double latency_s = 0;
  double bandwidth_bytes_per_s = std::numeric_limits<double>::infinity();

  double seconds(double bytes) const { return bytes / bandwidth_bytes_per_s; }
};

struct NetworkModel {
  int ranks_per_node = std::numeric_limits<int>::max();  // ranks are numbered node by node
  LinkModel intra;                                       // within a node
  LinkModel inter;                                       // between nodes

  bool same_node(int a, int b) const { return a / ranks_per_node == b / ranks_per_node; }
  const LinkModel& link(int a, int b) const { return same_node(a, b) ? intra : inter; }
};

// A group of ranks of the world as one of them sees it.
class GroupCost {
 public:
  GroupCost(const NetworkModel& network, std::vector<int> members, int rank);

  // Each rank ends with `bytes` of which it had 1/n; reduce_scatter is the same backwards.
  double all_gather(double bytes) const;
  double all_reduce(double bytes) const { return 2 * all_gather(bytes); }
  double broadcast(double bytes) const { return ring(bytes, bytes); }
  // Bytes to and from each member; what stays on this rank is free.
  double all_to_all(std::span<const double> sent, std::span<const double> received) const;
  double barrier() const { return latency_s_; }

 private:
  // The slower of what each rank takes in from its node and what a node takes in through the links of its ranks.
  double ring(double into_rank, double into_node) const;

  NetworkModel network_;
  std::vector<int> members_;
  int rank_;
  int nodes_ = 0;
  int ranks_on_a_node_;  // on the node with the fewest: their links carry what enters it
  double latency_s_ = 0;
};

}  // namespace sluice
