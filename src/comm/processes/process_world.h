// Ranks in several processes, one or more in each as threads: sums, their order and so all bits are those of threads in
// one process (comm/inproc).
#pragma once

#include <functional>
#include <memory>

#include "comm/communicator.h"
#include "comm/processes/courier.h"

namespace sluice {

struct ProcessOptions {
  double timeout_s = 600;
  bool async = false;  // collectives go on while their callers do, as in InprocOptions
};

class ProcessWorld {
 public:
  // `courier` outlives the object; all processes make theirs, one after the other.
  ProcessWorld(Courier& courier, const ProcessOptions& options);
  ~ProcessWorld();
  ProcessWorld(const ProcessWorld&) = delete;
  ProcessWorld& operator=(const ProcessWorld&) = delete;
  ProcessWorld(ProcessWorld&&) = delete;
  ProcessWorld& operator=(ProcessWorld&&) = delete;

  // Of a rank of this process, axis "world". The object outlives it, all that is split from it and their Works.
  std::unique_ptr<Communicator> communicator(int rank);
  // body(rank) on a thread for each rank of this process; see Job::run. All processes return together, and none does so
  // where a rank of another has failed.
  void run(const std::function<void(int rank)>& body);

  Courier& courier() const { return courier_; }
  Job& job() { return job_; }
  bool async() const { return options_.async; }

 private:
  Courier& courier_;
  ProcessOptions options_;
  Job job_;
  int number_;  // among the worlds of its courier
};

// Runs `body` on a thread for each rank of this process, each with its world communicator. If a rank fails, here or
// elsewhere, the failure that came first is thrown.
void run_ranks(Courier& courier, const ProcessOptions& options, const std::function<void(Communicator& world)>& body);

}  // namespace sluice
