#include "comm/meta/network.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace sluice {

GroupCost::GroupCost(const NetworkModel& network, std::vector<int> members, int rank)
    : network_(network),
      members_(std::move(members)),
      rank_(rank),
      ranks_on_a_node_(static_cast<int>(members_.size())) {
  std::map<int, int> ranks_on;
  for (const int member : members_) ++ranks_on[member / network.ranks_per_node];
  nodes_ = static_cast<int>(ranks_on.size());
  int most = 1;
  for (const auto& [node, ranks] : ranks_on) {
    ranks_on_a_node_ = std::min(ranks_on_a_node_, ranks);
    most = std::max(most, ranks);
  }
  latency_s_ =
      network.intra.latency_s * std::ceil(std::log2(most)) + network.inter.latency_s * std::ceil(std::log2(nodes_));
}

double GroupCost::ring(double into_rank, double into_node) const {
  const double within = ranks_on_a_node_ > 1 ? network_.intra.seconds(into_rank) : 0;
  const double between = nodes_ > 1 ? network_.inter.seconds(into_node / ranks_on_a_node_) : 0;
  return latency_s_ + std::max(within, between);
}

double GroupCost::all_gather(double bytes) const {
  const auto n = static_cast<double>(members_.size());
  return ring(bytes * (n - 1) / n, bytes * (nodes_ - 1) / nodes_);
}

double GroupCost::all_to_all(std::span<const double> sent, std::span<const double> received) const {
  double out[2] = {};
  double in[2] = {};
  for (size_t r = 0; r < members_.size(); ++r) {
    if (static_cast<int>(r) == rank_) continue;
    const size_t between = network_.same_node(members_[r], members_[static_cast<size_t>(rank_)]) ? 0 : 1;
    out[between] += sent[r];
    in[between] += received[r];
  }
  const double within_s = network_.intra.seconds(std::max(out[0], in[0]));
  const double between_s = network_.inter.seconds(std::max(out[1], in[1]));
  return latency_s_ + std::max(within_s, between_s);
}

}  // namespace sluice
