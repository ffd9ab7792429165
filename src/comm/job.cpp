#include "comm/job.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <thread>

namespace sluice {

namespace {

std::string message_of(const std::exception_ptr& cause) {
  try {
    std::rethrow_exception(cause);
  } catch (const std::exception& e) {
    return e.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

// What a missing rank has not done yet, as seen by one that waits in `kind`.
const char* verb_of(Collective kind) {
  if (kind == Collective::recv) return "sent";
  return kind == Collective::send ? "received" : "arrived";
}

}  // namespace

std::string format_ranks(std::vector<int> ranks) {
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t i = 0; i < ranks.size();) {
    size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (last < i + 2) last = i;
    if (i > 0) text += ", ";
    text += std::to_string(ranks[i]);
    if (last > i) text += "-" + std::to_string(ranks[last]);
    i = last + 1;
  }
  return text;
}

Job::Job(std::vector<int> ranks, double timeout_s) : ranks_(std::move(ranks)), timeout_s_(timeout_s) {
  require(timeout_s > 0, "a timeout of {} s", timeout_s);
}

void Job::run(const std::function<void(int rank)>& body) {
  const auto run_rank = [&](int rank) {
    try {
      body(rank);
      leave(rank);
    } catch (...) {
      fail(rank, std::current_exception());
    }
  };
  if (ranks_.size() == 1) {
    run_rank(ranks_[0]);
  } else {
    std::vector<std::thread> threads;
    threads.reserve(ranks_.size());
    for (const int rank : ranks_) {
      try {
        threads.emplace_back(run_rank, rank);
      } catch (const std::exception& e) {
        const Error error = runtime_failure("rank {}: no thread of {}: {}", rank, ranks_.size(), e.what());
        fail(rank, std::make_exception_ptr(error));
        break;
      }
    }
    for (std::thread& thread : threads) thread.join();
  }
  if (failed()) rethrow_cause();
}

bool Job::failed() const {
  const std::lock_guard guard(mutex_);
  return cause_rank_ >= 0;
}

void Job::check(const Lock&, int rank, const CallName& call) const {
  if (cause_rank_ < 0) return;
  throw runtime_failure("rank {} failed: {} (rank {} was in {})", cause_rank_, cause_message_, rank, call.str());
}

void Job::wait(Lock& lock, std::condition_variable& condition, int rank, const CallName& call,
               const std::function<bool()>& ready, const std::function<std::vector<int>()>& missing) {
  using Clock = std::chrono::steady_clock;
  if (ready()) return;
  const auto begin = Clock::now();
  const auto deadline =
      begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(timeout_s_, 1e8)));
  // Leaves the register of waiting ranks however the wait ends.
  struct Registered {
    std::vector<Waiting>& all;
    const CallName* call;
    ~Registered() {
      std::erase_if(all, [&](const Waiting& w) { return w.call == call; });
    }
  };
  waiting_.push_back({rank, &call, &condition});
  const Registered registered{waiting_, &call};
  const char* verb = verb_of(call.kind);
  while (!ready()) {
    check(lock, rank, call);
    if (!left_.empty() && has_left(missing())) {
      fail_with(lock, rank,
                runtime_failure("rank {} waits in {}: {}", rank, call.str(), account(rank, call, missing(), verb)));
    }
    if (Clock::now() >= deadline) {
      const double waited = std::chrono::duration<double>(Clock::now() - begin).count();
      fail_with(lock, rank,
                runtime_failure("rank {} waited {:.1f} s in {}: {}", rank, waited, call.str(),
                                account(rank, call, missing(), verb)));
    }
    condition.wait_until(lock, deadline);
  }
}

bool Job::has_left(const std::vector<int>& ranks) const {
  return std::any_of(ranks.begin(), ranks.end(),
                     [&](int rank) { return std::find(left_.begin(), left_.end(), rank) != left_.end(); });
}

std::string Job::account(int rank, const CallName& call, const std::vector<int>& missing, const char* verb) const {
  std::vector<int> gone;
  std::vector<int> late;
  for (const int r : missing) (has_left({r}) ? gone : late).push_back(r);
  std::vector<int> here;
  std::string elsewhere;
  for (const Waiting& w : waiting_) {
    if (std::find(missing.begin(), missing.end(), w.rank) != missing.end()) {
      elsewhere += fmt::format("; rank {} is waiting in {}", w.rank, w.call->str());
    } else if (w.rank != rank && *w.call == call) {
      here.push_back(w.rank);
    }
  }
  std::string text;
  if (!gone.empty()) text += format_ranks(gone) + (gone.size() == 1 ? " has left" : " have left");
  if (!late.empty()) {
    text += fmt::format("{}{} {} not {}", text.empty() ? "" : ", ", format_ranks(late),
                        late.size() == 1 ? "has" : "have", verb);
  }
  text += elsewhere;
  if (!here.empty()) {
    text += fmt::format("; {} {} waiting in the same call", format_ranks(here), here.size() == 1 ? "is" : "are");
  }
  return text;
}

std::string Job::bystanders(int rank) const {
  std::map<std::string, std::vector<int>> calls;
  for (const Waiting& w : waiting_) {
    if (w.rank != rank) calls[w.call->str()].push_back(w.rank);
  }
  std::string text;
  for (const auto& [call, ranks] : calls) {
    text += fmt::format("{}{} {} waiting in {}", text.empty() ? "" : "; ", format_ranks(ranks),
                        ranks.size() == 1 ? "was" : "were", call);
  }
  return text;
}

void Job::fail(int rank, std::exception_ptr cause) {
  const std::lock_guard guard(mutex_);
  fail_locked(rank, std::move(cause), false);
}

void Job::fail_with(Lock&, int rank, const Error& error) {
  fail_locked(rank, std::make_exception_ptr(error), false);
  throw error;
}

void Job::dropped(int rank, const CallName& call, bool unwinding) {
  const Error error(ErrorKind::internal,
                    fmt::format("rank {}: the Work of {} was destroyed before it was waited for", rank, call.str()));
  const std::lock_guard guard(mutex_);
  fail_locked(rank, std::make_exception_ptr(error), unwinding);
}

void Job::fail_locked(int rank, std::exception_ptr cause, bool provisional) {
  const bool first = cause_rank_ < 0;
  if (!first && !(provisional_ && cause_rank_ == rank)) return;
  cause_ = std::move(cause);
  cause_message_ = message_of(cause_);
  cause_rank_ = rank;
  provisional_ = provisional;
  if (first) {
    bystanders_ = bystanders(rank);
    wake_all();
  }
}

void Job::wake_all() {
  for (const Waiting& w : waiting_) w.condition->notify_all();
}

void Job::leave(int rank) {
  const std::lock_guard guard(mutex_);
  left_.push_back(rank);
  wake_all();
}

void Job::rethrow_cause() const {
  const auto named = [&](const std::string& message) {
    return ranks_.size() == 1 || message.starts_with("rank ") ? message
                                                              : fmt::format("rank {}: {}", cause_rank_, message);
  };
  try {
    std::rethrow_exception(cause_);
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::user) throw;
    Error renamed(error.kind(), named(error.what()));
    throw std::move(renamed).at(error.where()).advise(error.hint().empty() ? bystanders_ : error.hint());
  } catch (const std::exception& e) {
    throw runtime_failure("{}", named(e.what())).advise(bystanders_);
  }
}

}  // namespace sluice
