// Rank: what the communicators of one rank share. It watches their calls on the GPU from a thread of its own, and ends
// all of them together: by a timeout, by an error of NCCL or CUDA, or because another rank of the job has failed.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/job.h"
#include "comm/nccl/api.h"
#include "comm/nccl/ledger.h"
#include "comm/nccl/nccl.h"

namespace sluice::nccl {

class Channel;

// The job that the rank belongs to, where it knows one: its other ranks are threads of this process, or of others.
struct Peers {
  Job* job = nullptr;
  std::shared_ptr<Ledger> ledger;  // of the ranks of this process
  // What `members` in other processes do, of those that are not in `call` as well: "rank 5 on host b computes". Empty:
  // nothing to add. May ask their processes and wait for the answers.
  std::function<std::string(const std::vector<int>& members, const CallName& call)> elsewhere = {};
};

// A call on its way. The rank's thread owns it until watch(), then the fields below are under the Rank's lock.
struct Call {
  using Clock = std::chrono::steady_clock;
  CallName name;
  Ledger::BookPtr book;
  int64_t number = 0;
  Event begun;  // its turn on its stream has come
  Event ended;

  bool issued = false;  // NCCL has all of it, and both events are recorded
  bool running = false;
  bool done = false;
  Clock::time_point since;  // when it was seen to begin
};
using CallPtr = std::shared_ptr<Call>;

class Rank {
 public:
  Rank(int world_rank, int gpu, NcclOptions options, Peers peers);
  ~Rank();
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;

  int world_rank() const { return world_rank_; }
  const NcclOptions& options() const { return options_; }
  const Peers& peers() const { return peers_; }
  // Makes the GPU that of the calling thread.
  void use() const { cuda::check(cudaSetDevice(gpu_), "choosing the GPU"); }

  // Throws the failure that ended this rank's communicators.
  void check() const;
  // f() while no communicator is aborted; throws instead if they have been. NCCL's calls are made in here: they return
  // soon, and what they are given stays valid.
  template <class F>
  auto guarded(F&& f) const {
    const std::lock_guard guard(mutex_);
    check_locked();
    return f();
  }

  void add(Channel& channel);
  void remove(Channel& channel);

  // A call that nobody uses any more, with a new name.
  CallPtr take(CallName name);
  // From here the call is watched, until its end is seen or give_up().
  void watch(const CallPtr& call);
  void set_issued(Call& call);
  void give_up(Call& call);
  // Blocks the host until the call has ended.
  void await(Call& call) const;

  // The first failure counts; it aborts all communicators.
  void fail(const std::string& message);
  // A Work was destroyed before it was waited for: ends the job. On return nothing uses its buffers.
  void dropped(Call& call, bool unwinding);
  // Returns when an aborted call's kernel has seen that and left.
  static void outlast(const Call& call);

 private:
  void check_locked() const;
  void fail_locked(const std::string& message, bool tell);
  // Why the job has failed, for a rank that is in `call`; empty while it has not.
  std::string failure_of_job(const CallName& call) const;
  void look();
  // Lets the job's register say what the GPU waits in.
  void show();
  // ": " and whom the call waits for; empty where nobody can say.
  std::string account(const Call& call) const;
  // What is wrong with the call at `now`; empty if nothing.
  std::string trouble_of(Call& call, Call::Clock::time_point now) const;
  void loop();

  int world_rank_;
  int gpu_;
  NcclOptions options_;
  Peers peers_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::string failure_;
  std::vector<Channel*> channels_;
  std::vector<CallPtr> watched_;
  std::vector<CallPtr> finished_;  // to be used again
  CallPtr shown_;                  // what the register has
  Bell bell_;                      // nobody listens to it
  std::optional<Job::Waiting> waiting_;
  std::thread watchdog_;
};

}  // namespace sluice::nccl
