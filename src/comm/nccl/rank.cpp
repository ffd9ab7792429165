#include "comm/nccl/rank.h"

#include <algorithm>

#include "comm/nccl/channel.h"

namespace sluice::nccl {

using Clock = Call::Clock;

Rank::Rank(int world_rank, int gpu, const NcclOptions& options, Peers peers)
    : world_rank_(world_rank), gpu_(gpu), options_(options), peers_(std::move(peers)) {
  require(options_.timeout_s > 0 && options_.poll_s > 0, "a timeout of {} s, looked at every {} s", options_.timeout_s,
          options_.poll_s);
  use();
  watchdog_ = std::thread([this] { loop(); });
}

Rank::~Rank() {
  {
    const std::lock_guard guard(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  watchdog_.join();
}

void Rank::check_locked() const {
  if (!failure_.empty()) throw runtime_failure("{}", failure_);
}

void Rank::check() const {
  const std::lock_guard guard(mutex_);
  check_locked();
}

void Rank::add(Channel& channel) {
  const std::lock_guard guard(mutex_);
  channels_.push_back(&channel);
}

void Rank::remove(Channel& channel) {
  const std::lock_guard guard(mutex_);
  std::erase(channels_, &channel);
}

CallPtr Rank::take(CallName name) {
  CallPtr call;
  {
    const std::lock_guard guard(mutex_);
    const auto free =
        std::find_if(finished_.begin(), finished_.end(), [](const CallPtr& c) { return c.use_count() == 1; });
    if (free != finished_.end()) {
      call = *free;
      *free = finished_.back();
      finished_.pop_back();
    }
  }
  if (!call) call = std::make_shared<Call>();
  call->name = std::move(name);
  call->book = nullptr;
  call->issued = call->running = call->done = false;
  return call;
}

void Rank::watch(const CallPtr& call) {
  const std::lock_guard guard(mutex_);
  call->since = Clock::now();
  watched_.push_back(call);
}

void Rank::set_issued(Call& call) {
  const std::lock_guard guard(mutex_);
  call.issued = true;
}

void Rank::give_up(Call& call) {
  const std::lock_guard guard(mutex_);
  std::erase_if(watched_, [&](const CallPtr& c) { return c.get() == &call; });
}

void Rank::await(Call& call) const {
  while (true) {
    const cudaError_t status = guarded([&] { return call.done ? cudaSuccess : call.ended.query(); });
    if (status == cudaSuccess) return;
    if (status != cudaErrorNotReady) cuda::check(status, call.name.str().c_str());
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

void Rank::fail(const std::string& message) {
  const std::lock_guard guard(mutex_);
  fail_locked(message, true);
}

void Rank::fail_locked(const std::string& message, bool tell) {
  if (!failure_.empty()) return;
  failure_ = message;
  for (Channel* channel : channels_) channel->abort();
  if (tell && peers_.tell) peers_.tell(message);
}

void Rank::dropped(Call& call, bool unwinding) {
  const std::string message =
      fmt::format("rank {}: the Work of {} was destroyed before it was waited for", world_rank_, call.name.str());
  if (peers_.dropped) peers_.dropped(call.name, unwinding);
  {
    const std::lock_guard guard(mutex_);
    fail_locked(message, !peers_.dropped);
  }
  outlast(call);
}

void Rank::outlast(const Call& call) {
  constexpr auto kPatience = std::chrono::seconds(10);
  const auto deadline = Clock::now() + kPatience;
  while (call.ended.query() == cudaErrorNotReady && Clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

std::string Rank::trouble_of(Call& call, Clock::time_point now) const {
  const Ledger* ledger = call.book ? peers_.ledger.get() : nullptr;
  if (call.issued) {
    const cudaError_t end = call.ended.query();
    call.done = end == cudaSuccess;
    if (call.done) return {};
    if (end != cudaErrorNotReady) {
      return fmt::format("rank {}: {}: {}: {}", world_rank_, call.name.str(), cudaGetErrorName(end),
                         cudaGetErrorString(end));
    }
    if (!call.running) {
      // What comes before it on its stream is watched, or computes.
      call.running = call.begun.query() == cudaSuccess;
      call.since = now;
    }
  }
  if (ledger != nullptr && ledger->hopeless(*call.book, call.number)) {
    return fmt::format("rank {} waits in {}: {}", world_rank_, call.name.str(),
                       ledger->account(*call.book, call.number));
  }
  const double waited = std::chrono::duration<double>(now - call.since).count();
  if (waited < options_.timeout_s) return {};
  return fmt::format("rank {} waited {:.1f} s in {}{}{}", world_rank_, waited, call.name.str(),
                     ledger != nullptr ? ": " : "", ledger != nullptr ? ledger->account(*call.book, call.number) : "");
}

void Rank::look() {
  for (const Channel* channel : channels_) {
    const std::string error = channel->async_error();
    if (!error.empty()) return fail_locked(error, true);
  }
  const auto now = Clock::now();
  for (const CallPtr& call : watched_) {
    const std::string trouble = trouble_of(*call, now);
    if (!trouble.empty()) return fail_locked(trouble, true);
    if (call->done) finished_.push_back(call);
  }
  std::erase_if(watched_, [](const CallPtr& call) { return call->done; });
  // A rank that has nothing under way learns of the others' failures with its next call.
  if (!peers_.failure || watched_.empty()) return;
  const std::string failure = peers_.failure(watched_.front()->name);
  if (!failure.empty()) fail_locked(failure, false);
}

void Rank::loop() {
  std::unique_lock lock(mutex_);
  try {
    use();
    while (!stop_ && failure_.empty()) {
      look();
      changed_.wait_for(lock, std::chrono::duration<double>(options_.poll_s));
    }
  } catch (const std::exception& error) {
    fail_locked(fmt::format("rank {}: its watchdog: {}", world_rank_, error.what()), true);
  }
}

}  // namespace sluice::nccl
