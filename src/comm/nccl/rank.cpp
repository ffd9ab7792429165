#include "comm/nccl/rank.h"

#include <algorithm>

#include "comm/nccl/channel.h"

namespace sluice::nccl {

using Clock = Call::Clock;

Rank::Rank(int world_rank, int gpu, NcclOptions options, Peers peers)
    : world_rank_(world_rank), gpu_(gpu), options_(std::move(options)), peers_(std::move(peers)) {
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
  waiting_.reset();
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
  if (tell && peers_.job != nullptr) {
    peers_.job->fail(world_rank_, std::make_exception_ptr(runtime_failure("{}", message)));
  }
}

std::string Rank::failure_of_job(const CallName& call) const {
  try {
    peers_.job->check(world_rank_, call);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

void Rank::dropped(Call& call, bool unwinding) {
  const std::string message =
      fmt::format("rank {}: the Work of {} was destroyed before it was waited for", world_rank_, call.name.str());
  if (peers_.job != nullptr) peers_.job->dropped(world_rank_, call.name, unwinding);
  {
    const std::lock_guard guard(mutex_);
    fail_locked(message, false);
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
  if (call.book && peers_.ledger->hopeless(*call.book, call.number)) {
    return fmt::format("rank {} waits in {}{}", world_rank_, call.name.str(), account(call));
  }
  const double waited = std::chrono::duration<double>(now - call.since).count();
  if (waited < options_.timeout_s) return {};
  return fmt::format("rank {} waited {:.1f} s in {}{}", world_rank_, waited, call.name.str(), account(call));
}

std::string Rank::account(const Call& call) const {
  if (!call.book) return {};
  std::string text = peers_.ledger->account(*call.book, call.number);
  const std::vector<int> others = peers_.ledger->elsewhere(*call.book);
  const std::string answers = others.empty() ? "" : peers_.elsewhere(others, call.name);
  if (!answers.empty()) text += (text.empty() ? "" : "; ") + answers;
  return ": " + (text.empty() ? "all ranks have issued it" : text);
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
  if (peers_.job == nullptr) return;
  show();
  // A rank that has nothing under way learns of the others' failures with its next call.
  if (watched_.empty()) return;
  const std::string failure = failure_of_job(watched_.front()->name);
  if (!failure.empty()) fail_locked(failure, false);
}

void Rank::show() {
  const auto begun = [](const CallPtr& call) { return call->running || !call->issued; };
  const auto first = std::find_if(watched_.begin(), watched_.end(), begun);
  CallPtr now = first == watched_.end() ? nullptr : *first;
  if (now == shown_) return;
  waiting_.reset();
  shown_ = std::move(now);
  if (shown_) waiting_.emplace(*peers_.job, world_rank_, shown_->name, bell_);
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
