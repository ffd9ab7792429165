#include "comm/nccl_groups.h"

#include <algorithm>
#include <string>

namespace sluice {

namespace {

bool contains(const std::vector<std::string>& axes, const std::string& axis) {
  return std::find(axes.begin(), axes.end(), axis) != axes.end();
}

}  // namespace

NcclGroups nccl_groups(const Mesh& mesh, const nccl::NcclOptions& options) {
  NcclGroups all;
  for (const Communicator* group : {&mesh.world, mesh.pp.get(), mesh.stage.get(), mesh.dp.get(), mesh.fsdp.get(),
                                    mesh.replicate.get(), mesh.ep.get(), mesh.ep_shard.get()}) {
    if (group->size() == 1) continue;
    if (contains(options.message_axes, group->axis())) {
      for (const int neighbour : nccl::neighbours_on_ring(group->rank(), group->size())) {
        const int peer = group->members()[static_cast<size_t>(neighbour)];
        for (int parity = 0; parity < nccl::kMessageParities; ++parity) {
          all.receivers.push_back(peer);
          all.senders.push_back(peer);
        }
      }
      continue;
    }
    const bool urgent = contains(options.urgent_axes, group->axis());
    const bool exchanges = contains(options.exchange_axes, group->axis());
    const auto shared = std::find_if(all.groups.begin(), all.groups.end(), [&](const NcclGroups::Group& other) {
      return other.urgent == urgent && other.members == group->members();
    });
    if (shared == all.groups.end()) {
      all.groups.push_back({group->members(), urgent, exchanges});
    } else {
      shared->exchanges = shared->exchanges || exchanges;
    }
  }
  return all;
}

}  // namespace sluice
