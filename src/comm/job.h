// Job: the ranks of this process, which are threads. It runs them, watches every wait, and ends all of them with the
// first failure. A wait ends by a timeout, at once when a rank it needs has left, or when any rank fails; the message
// says who waits for whom in which call, and what the missing ranks wait for instead. Where these wait themselves a
// wait lasts a little longer, so that the rank to blame is named, by one that waits for it. Ranks may have peers in
// other processes (Elsewhere).
#pragma once

#include <atomic>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "comm/bell.h"
#include "comm/communicator.h"

namespace sluice {

// Ranks have no mutex in common while nothing fails: each has a register of its own of what it waits in, which others
// read only to wake it and to say where it is. The mutex of a group may be held when a job's is taken, never the other
// way round.
class Job {
  struct Seat;

 public:
  // What ranks do that others wait for.
  struct Account {
    std::string text;
    bool all_wait = true;  // each of them waits itself: another one is to blame
  };

  // The job's ranks in other processes, for those here. Called from any thread, also with a job's mutex held: only
  // account() may wait.
  class Elsewhere {
   public:
    Elsewhere() = default;
    Elsewhere(const Elsewhere&) = delete;
    Elsewhere& operator=(const Elsewhere&) = delete;
    virtual ~Elsewhere() = default;
    virtual bool has_left(int rank) const = 0;
    // What these ranks do, as their processes answer now: "rank 5 on host b is waiting in ...". Empty: nothing to add.
    virtual Account account(const std::vector<int>& ranks) = 0;
    virtual void tell_failure(int rank, const Error& cause) = 0;
    virtual void tell_left(int rank) = 0;
  };

  // `ranks`: those of the world that run here. `elsewhere`, null where there are no others, outlives the object.
  Job(std::vector<int> ranks, double timeout_s, Elsewhere* elsewhere = nullptr);
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  // body(rank) on a thread of its own for each rank (on the caller's for a single one). When all have ended, the first
  // failure is thrown: a user error as it was, others with their rank.
  void run(const std::function<void(int rank)>& body);

  // Throws if the job has failed.
  void check(int rank, const CallName& call) const {
    if (failed()) throw_failure(rank, call);
  }

  // A rank's place in the register of those that wait, as long as it lives. `call` and `bell` outlive it.
  class Waiting {
   public:
    Waiting(Job& job, int rank, const CallName& call, Bell& bell);
    ~Waiting();
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

   private:
    friend class Job;
    Seat& seat_;
    const int rank_;
    const CallName& call_;
    Bell& bell_;
  };
  // Sleeps until ready(); whoever makes it so rings the bell. `missing()` names the ranks that have yet to come.
  // Neither is called with a mutex held.
  void wait(const Waiting& waiting, const std::function<bool()>& ready,
            const std::function<std::vector<int>()>& missing);

  // The first failure is the cause, later ones its consequences.
  void fail(int rank, std::exception_ptr cause);
  // A rank of another process has failed, or a process can no longer be reached: `cause` says which.
  void fail_elsewhere(int rank, const Error& cause);
  // A rank of another process has left.
  void left_elsewhere();
  // Fails the job and throws.
  [[noreturn]] void fail_with(int rank, const Error& error);
  // A Work was destroyed before it was waited for. While an exception unwinds that exception becomes the cause.
  void dropped(int rank, const CallName& call, bool unwinding);
  // The rank needs nobody any more and will take part in nothing.
  void leave(int rank);
  bool failed() const { return failed_.load(); }
  // Whether it has failed by a rank of this process.
  bool failed_here() const;
  // What ranks wait in here, in the order of ranks.
  std::vector<std::pair<int, std::string>> waits() const;

 private:
  struct alignas(64) Seat {
    std::mutex mutex;
    std::vector<const Waiting*> waiting;  // one for each thread of the rank that waits
    std::atomic<bool> left{false};
  };

  // Null for ranks that do not run here.
  Seat* find_seat(int rank) const;
  enum class Cause : uint8_t { final, provisional, elsewhere };
  void fail_as(int rank, std::exception_ptr cause, Cause kind);
  [[noreturn]] void throw_failure(int rank, const CallName& call) const;
  void wake_all();
  bool has_left(int rank) const;
  // Of these ranks, those that have left.
  std::vector<int> those_left(std::vector<int> ranks) const;
  // see(rank, call) for everything in the register, in the order of ranks.
  template <class See>
  void for_each_waiting(See&& see) const;
  // "rank 1 has not arrived; ranks 0, 2 are waiting in the same call"
  Account account(int rank, const CallName& call, const std::vector<int>& missing) const;
  std::string bystanders(int rank) const;
  [[noreturn]] void rethrow_cause() const;

  const std::vector<int> ranks_;  // in rising order
  double timeout_s_;
  Elsewhere* elsewhere_;
  mutable std::vector<Seat> seats_;  // of ranks_; mutable: their mutexes
  std::atomic<int> departures_{0};   // ranks that left
  std::atomic<bool> failed_{false};  // set after what follows it

  mutable std::mutex mutex_;
  std::exception_ptr cause_;
  int cause_rank_ = -1;
  Cause cause_kind_ = Cause::final;
  std::string cause_message_;
  mutable std::string bystanders_;
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
