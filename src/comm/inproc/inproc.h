// inproc: ranks are threads of this process and read each other's memory.
// Inline (the default) a collective is done by the calling threads before the call returns. With `async` each
// communicator of each rank has a worker that does its collectives one after the other while the caller goes on: a
// missing wait then shows as a race.
// Order of sums and bits of results are the same in both, and from run to run.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "comm/inproc/mover.h"

namespace sluice {

class Group;
class Job;

struct InprocOptions {
  double timeout_s = 600;
  bool async = false;
  // Where the ranks' buffers are; null: in host memory.
  MoverFactory mover = {};
};

class InprocWorld {
 public:
  explicit InprocWorld(int ranks, const InprocOptions& options = {});
  ~InprocWorld();
  InprocWorld(const InprocWorld&) = delete;
  InprocWorld& operator=(const InprocWorld&) = delete;

  // The communicator of all ranks, axis "world". The world must outlive it, everything split from it and their Works.
  std::unique_ptr<Communicator> communicator(int rank);

  // Ends every wait of all ranks with this rank's message; their later calls fail too.
  void abort(int rank, const std::string& message);

  // body(rank) on a thread for each rank; see run_ranks.
  void run(const std::function<void(int rank)>& body);

  const InprocOptions& options() const { return options_; }
  Job& job() const { return *job_; }
  // The group that the `sequence`-th split of `parent` gave `members`: the first rank to ask makes it.
  Group& group(const Group* parent, int sequence, int rank, const std::string& axis, const std::vector<int>& members);

 private:
  struct GroupKey {
    const Group* parent;
    int sequence;
    int first_member;
    auto operator<=>(const GroupKey&) const = default;
  };

  InprocOptions options_;
  std::vector<int> ranks_;
  std::unique_ptr<Job> job_;
  std::mutex groups_mutex_;
  std::map<GroupKey, std::unique_ptr<Group>> groups_;
};

// Runs `body` on `ranks` threads, each with its world communicator, and returns when all have ended. If ranks failed,
// the failure that came first is thrown, with its rank; the failures it caused on others are not reported.
void run_ranks(int ranks, const InprocOptions& options, const std::function<void(Communicator& world)>& body);

}  // namespace sluice
