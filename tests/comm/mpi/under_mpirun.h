// Tests whose processes mpirun has started: their names end in "_under_mpirun", and tests of mpirun_test.cpp run them.
#pragma once

#include <functional>
#include <string>

#include "comm/mpi/mpi.h"
#include "comm/processes/process_world.h"

namespace sluice::test {

// As mpirun says in the environment.
mpi::Launched launched();
// This process's, which begins with the first call and ends with the process.
mpi::Session& session();

// A member with its share of `ranks`; the first processes have one more where they do not divide.
Member share_of(int process, int processes, int ranks);
// As many ranks, over all processes.
void run_over_mpi(int ranks, const ProcessOptions& options, const std::function<void(Communicator& world)>& body);

}  // namespace sluice::test
