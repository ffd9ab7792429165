// Which processes of a run are to be started on this host.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/environment.h"

namespace sluice::launch {

// What the command line of `sluice launch` says.
struct LaunchFlags {
  std::optional<int> processes;  // --nproc
  std::optional<int> nodes;      // --nnodes
  std::optional<int> node;       // --node-rank
  std::optional<std::string> master;
  int restarts = 0;
};

struct LocalPlan {
  int processes = 1;  // of this host, as of each
  int nodes = 1;
  int node = 0;
  // Where process 0 is to be found; empty: on this host, at a port that the launcher finds.
  std::optional<Address> master;
  int restarts = 0;  // how often all are started again after one has failed

  int all() const { return nodes * processes; }
  int first() const { return node * processes; }
};

// What is not given is taken from PET_NPROC_PER_NODE, PET_NNODES, PET_NODE_RANK, PET_MASTER_ADDR and PET_MASTER_PORT
// (and, of several nodes, MASTER_ADDR and MASTER_PORT), as torchrun does. User error where that makes no plan, and
// where this launcher is itself one of several processes that are meant to be one run.
LocalPlan local_plan(const LaunchFlags& flags, const Environment& environment);

// What tells one of the processes who it is: torchrun's names. `local` counts from 0.
std::vector<std::pair<std::string, std::string>> names_for(const LocalPlan& plan, int local, const Address& master);

}  // namespace sluice::launch
