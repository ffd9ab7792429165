// A job of several "processes", each of which is a thread of the test with threads of its own for its ranks.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/processes/memory_wire.h"
#include "comm/processes/process_world.h"

namespace sluice::test {

struct ProcessCase {
  std::vector<int> ranks = {1, 1};  // of each process
  double timeout_s = 60;
  bool async = false;
  // The wire of a process; null: through memory.
  std::function<std::unique_ptr<Wire>(int process)> wire = {};
  // Called with the wires through memory, before anything runs.
  std::function<void(MemoryWires&)> wires = {};
};

// body(courier) in each process; what it has thrown, null where nothing.
std::vector<std::exception_ptr> run_couriers(const ProcessCase& test, const std::function<void(Courier&)>& body);
// What each process's run has thrown, null where nothing.
std::vector<std::exception_ptr> run_processes(const ProcessCase& test,
                                              const std::function<void(Communicator& world)>& body);
// The same, where nothing is thrown.
void expect_couriers(const ProcessCase& test, const std::function<void(Courier&)>& body);
void expect_processes(const ProcessCase& test, const std::function<void(Communicator& world)>& body);

}  // namespace sluice::test
