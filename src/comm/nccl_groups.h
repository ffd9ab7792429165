// What NCCL makes for one rank of a mesh (comm/nccl), for plans: each takes memory of the rank's GPU.
#pragma once

#include <vector>

#include "comm/mesh.h"
#include "comm/nccl/nccl.h"

namespace sluice {

struct NcclGroups {
  // A communicator of NCCL for collectives.
  struct Group {
    std::vector<int> members;  // ranks of the world
    bool urgent = false;
    bool exchanges = false;  // every pair of its ranks is connected
  };
  std::vector<Group> groups;
  // Communicators for messages, of two ranks each: the receivers of those that this rank sends by, and the senders of
  // those it receives by.
  std::vector<int> receivers, senders;
};

NcclGroups nccl_groups(const Mesh& mesh, const nccl::NcclOptions& options = {});

}  // namespace sluice
