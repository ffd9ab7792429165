#include "comm/job.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

namespace sluice {

namespace {

Error error_of(const std::exception_ptr& cause) {
  try {
    std::rethrow_exception(cause);
  } catch (const Error& e) {
    return e;
  } catch (const std::exception& e) {
    return runtime_failure("{}", e.what());
  } catch (...) {
    return runtime_failure("an exception of an unknown type");
  }
}

// What a missing rank has not done yet, as seen by one that waits in `kind`.
const char* verb_of(Collective kind) {
  if (kind == Collective::recv) return "sent";
  return kind == Collective::send ? "received" : "arrived";
}

// How much longer a rank waits for others that wait themselves: whoever waits for the rank to blame fails meanwhile,
// which takes as long as other processes may take to answer.
double patience(double timeout_s) {
  constexpr double kMost = 10;
  return std::min(timeout_s, kMost);
}

std::vector<int> rising(std::vector<int> ranks) {
  std::sort(ranks.begin(), ranks.end());
  return ranks;
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

Job::Job(std::vector<int> ranks, double timeout_s, Elsewhere* elsewhere)
    : ranks_(rising(std::move(ranks))), timeout_s_(timeout_s), elsewhere_(elsewhere), seats_(ranks_.size()) {
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

void Job::throw_failure(int rank, const CallName& call) const {
  const std::lock_guard guard(mutex_);
  // Where nobody waited the first that learns of it shows how far the ranks had come.
  if (bystanders_.empty()) bystanders_ = fmt::format("rank {} was in {}", rank, call.str());
  throw runtime_failure("rank {} failed: {} (rank {} was in {})", cause_rank_, cause_message_, rank, call.str());
}

Job::Seat* Job::find_seat(int rank) const {
  const auto at = std::lower_bound(ranks_.begin(), ranks_.end(), rank);
  return at == ranks_.end() || *at != rank ? nullptr : &seats_[static_cast<size_t>(at - ranks_.begin())];
}

Job::Waiting::Waiting(Job& job, int rank, const CallName& call, Bell& bell)
    : seat_(*job.find_seat(rank)), rank_(rank), call_(call), bell_(bell) {
  const std::lock_guard guard(seat_.mutex);
  seat_.waiting.push_back(this);
}

Job::Waiting::~Waiting() {
  const std::lock_guard guard(seat_.mutex);
  std::erase(seat_.waiting, this);
}

// Whoever fails or leaves says so first and then rings the bells in the register, where this rank has been since before
// it looks: it sees the news, or it is rung.
void Job::wait(const Waiting& waiting, const std::function<bool()>& ready,
               const std::function<std::vector<int>()>& missing) {
  if (ready()) return;
  const int rank = waiting.rank_;
  const CallName& call = waiting.call_;
  const auto begin = Bell::Clock::now();
  const auto after = [&](double seconds) {
    return begin + std::chrono::duration_cast<Bell::Clock::duration>(std::chrono::duration<double>(seconds));
  };
  auto deadline = after(std::min(timeout_s_, 1e8));
  bool patient = false;
  while (true) {
    const uint32_t heard = waiting.bell_.count();
    if (ready()) return;
    check(rank, call);
    const bool late = Bell::Clock::now() >= deadline;
    if (late || departures_.load() > 0) {
      // A rank that was found missing may have come since, and then left: only one that is missing after it has left
      // will never come.
      const std::vector<int> gone = those_left(missing());
      const std::vector<int> absent = missing();
      const bool hopeless =
          std::ranges::any_of(gone, [&](int r) { return std::ranges::find(absent, r) != absent.end(); });
      if ((hopeless || (late && !absent.empty())) && !ready()) {
        const double waited = std::chrono::duration<double>(Bell::Clock::now() - begin).count();
        const Account others = account(rank, call, absent);
        if (!hopeless && !patient && others.all_wait) {
          patient = true;
          deadline = after(waited + patience(timeout_s_));
          continue;
        }
        const std::string waits = hopeless ? "waits" : fmt::format("waited {:.1f} s", waited);
        fail_with(rank, runtime_failure("rank {} {} in {}: {}", rank, waits, call.str(), others.text));
      }
    }
    // When all have come, what they wait for is under way and ends by itself.
    waiting.bell_.sleep(heard, late ? Bell::Clock::time_point::max() : deadline);
  }
}

std::vector<int> Job::those_left(std::vector<int> ranks) const {
  std::erase_if(ranks, [&](int rank) { return !has_left(rank); });
  return ranks;
}

bool Job::has_left(int rank) const {
  const Seat* seat = find_seat(rank);
  if (seat != nullptr) return seat->left.load();
  return elsewhere_ != nullptr && elsewhere_->has_left(rank);
}

template <class See>
void Job::for_each_waiting(See&& see) const {
  for (Seat& seat : seats_) {
    const std::lock_guard guard(seat.mutex);
    for (const Waiting* w : seat.waiting) see(w->rank_, w->call_);
  }
}

Job::Account Job::account(int rank, const CallName& call, const std::vector<int>& missing) const {
  std::vector<int> gone;
  std::vector<int> late;
  for (const int r : missing) (has_left(r) ? gone : late).push_back(r);
  std::vector<int> here;
  std::set<int> waiting;  // of the late ones of this process
  std::string elsewhere;
  for_each_waiting([&](int other, const CallName& its) {
    if (std::find(missing.begin(), missing.end(), other) != missing.end()) {
      waiting.insert(other);
      elsewhere += fmt::format("; rank {} is waiting in {}", other, its.str());
    } else if (other != rank && its == call) {
      here.push_back(other);
    }
  });
  std::string text;
  if (!gone.empty()) text += format_ranks(gone) + (gone.size() == 1 ? " has left" : " have left");
  if (!late.empty()) {
    text += fmt::format("{}{} {} not {}", text.empty() ? "" : ", ", format_ranks(late),
                        late.size() == 1 ? "has" : "have", verb_of(call.kind));
  }
  text += elsewhere;
  bool all_wait = gone.empty();
  std::erase_if(late, [&](int r) {
    if (find_seat(r) != nullptr) all_wait = all_wait && waiting.contains(r);
    return find_seat(r) != nullptr;
  });
  if (elsewhere_ != nullptr && !late.empty()) {
    const Account answers = elsewhere_->account(late);
    if (!answers.text.empty()) text += "; " + answers.text;
    all_wait = all_wait && answers.all_wait;
  }
  if (!here.empty()) {
    text += fmt::format("; {} {} waiting in the same call", format_ranks(here), here.size() == 1 ? "is" : "are");
  }
  return {.text = text, .all_wait = all_wait};
}

std::string Job::bystanders(int rank) const {
  std::map<std::string, std::vector<int>> calls;
  for_each_waiting([&](int other, const CallName& call) {
    if (other != rank) calls[call.str()].push_back(other);
  });
  std::string text;
  for (const auto& [call, ranks] : calls) {
    text += fmt::format("{}{} {} waiting in {}", text.empty() ? "" : "; ", format_ranks(ranks),
                        ranks.size() == 1 ? "was" : "were", call);
  }
  return text;
}

void Job::fail(int rank, std::exception_ptr cause) {
  fail_as(rank, std::move(cause), Cause::final);
}

void Job::fail_with(int rank, const Error& error) {
  fail_as(rank, std::make_exception_ptr(error), Cause::final);
  throw error;
}

void Job::dropped(int rank, const CallName& call, bool unwinding) {
  const Error error(ErrorKind::internal,
                    fmt::format("rank {}: the Work of {} was destroyed before it was waited for", rank, call.str()));
  fail_as(rank, std::make_exception_ptr(error), unwinding ? Cause::provisional : Cause::final);
}

void Job::fail_elsewhere(int rank, const Error& cause) {
  fail_as(rank, std::make_exception_ptr(cause), Cause::elsewhere);
}

void Job::left_elsewhere() {
  departures_.fetch_add(1);
  wake_all();
}

bool Job::failed_here() const {
  const std::lock_guard guard(mutex_);
  return cause_rank_ >= 0 && cause_kind_ != Cause::elsewhere;
}

std::vector<std::pair<int, std::string>> Job::waits() const {
  std::vector<std::pair<int, std::string>> list;
  for_each_waiting([&](int rank, const CallName& call) { list.emplace_back(rank, call.str()); });
  return list;
}

void Job::fail_as(int rank, std::exception_ptr cause, Cause kind) {
  const std::lock_guard guard(mutex_);
  const bool first = cause_rank_ < 0;
  if (!first && !(cause_kind_ == Cause::provisional && cause_rank_ == rank)) return;
  cause_ = std::move(cause);
  const Error error = error_of(cause_);
  cause_message_ = error.what();
  cause_rank_ = rank;
  cause_kind_ = kind;
  if (kind == Cause::final && elsewhere_ != nullptr) elsewhere_->tell_failure(rank, error);
  if (first) {
    bystanders_ = bystanders(rank);
    failed_.store(true);
    wake_all();
  }
}

void Job::wake_all() {
  for (Seat& seat : seats_) {
    const std::lock_guard guard(seat.mutex);
    for (const Waiting* w : seat.waiting) w->bell_.ring();
  }
}

void Job::leave(int rank) {
  find_seat(rank)->left.store(true);
  if (elsewhere_ != nullptr) elsewhere_->tell_left(rank);
  departures_.fetch_add(1);
  wake_all();
}

void Job::rethrow_cause() const {
  const auto named = [&](const std::string& message) {
    const bool says_who = message.starts_with("rank ") || message.starts_with("ranks ");
    return says_who || (ranks_.size() == 1 && elsewhere_ == nullptr) ? message
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
