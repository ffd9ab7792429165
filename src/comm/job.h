// Job: ranks that are threads of this process. It runs them, watches every wait, and ends all of them with the first
// failure. A wait ends by a timeout, at once when a rank it needs has left, or when any rank fails; the message says
// who waits for whom in which call, and what the missing ranks wait for instead.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace sluice {

class Job {
 public:
  using Lock = std::unique_lock<std::mutex>;

  // `ranks`: those of the world that run here.
  Job(std::vector<int> ranks, double timeout_s);
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // body(rank) on a thread of its own for each rank (on the caller's for a single one). When all have ended, the first
  // failure is thrown: a user error as it was, others with their rank.
  void run(const std::function<void(int rank)>& body);

  // The one mutex of everything ranks share in waiting. Data is never moved under it.
  Lock lock() { return Lock(mutex_); }

  // Throws if the job has failed.
  void check(const Lock& lock, int rank, const CallName& call) const;
  // Sleeps until ready(). `missing()` names the ranks that have yet to come.
  void wait(Lock& lock, std::condition_variable& condition, int rank, const CallName& call,
            const std::function<bool()>& ready, const std::function<std::vector<int>()>& missing);

  // The first failure is the cause, later ones its consequences.
  void fail(int rank, std::exception_ptr cause);
  // Fails the job and throws.
  [[noreturn]] void fail_with(Lock& lock, int rank, const Error& error);
  // A Work was destroyed before it was waited for. While an exception unwinds that exception becomes the cause.
  void dropped(int rank, const CallName& call, bool unwinding);
  // The rank needs nobody any more and will take part in nothing.
  void leave(int rank);
  bool failed() const;

 private:
  struct Waiting {
    int rank;
    const CallName* call;
    std::condition_variable* condition;
  };

  void fail_locked(int rank, std::exception_ptr cause, bool provisional);
  void wake_all();
  bool has_left(const std::vector<int>& ranks) const;
  // "rank 1 has not arrived; ranks 0, 2 are waiting in the same call"
  std::string account(int rank, const CallName& call, const std::vector<int>& missing, const char* verb) const;
  std::string bystanders(int rank) const;
  [[noreturn]] void rethrow_cause() const;

  std::vector<int> ranks_;
  double timeout_s_;
  mutable std::mutex mutex_;
  std::vector<Waiting> waiting_;
  std::vector<int> left_;
  std::exception_ptr cause_;
  int cause_rank_ = -1;
  bool provisional_ = false;
  std::string cause_message_;
  std::string bystanders_;
};

// Whether an exception began to unwind after this was made.
class UnwindingSince {
 public:
  bool operator()() const { return std::uncaught_exceptions() > before_; }

 private:
  int before_ = std::uncaught_exceptions();
};

// "rank 1", "ranks 0, 2", "ranks 16, 18-23".
std::string format_ranks(std::vector<int> ranks);

}  // namespace sluice
