#include "comm/nccl/channel.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace sluice::nccl {

namespace {

void pause(int polls) {
  constexpr int kSpins = 200;
  if (polls < kSpins) {
    std::this_thread::yield();
  } else {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

}  // namespace

Channel::Channel(std::shared_ptr<Rank> rank, ChannelSpec spec, const ncclUniqueId& id)
    : rank_(std::move(rank)), spec_(std::move(spec)), axes_({spec_.axis}), stream_(spec_.urgent) {
  const CallPtr call = rank_->take({Collective::barrier, spec_.axis, "the making of a communicator"});
  if (rank_->peers().ledger) {
    book_ = rank_->peers().ledger->book(spec_.name, spec_.members);
    call->book = book_;
    call->number = rank_->peers().ledger->post(*book_, spec_.self, {call->name, {}, {}, {}});
  }
  rank_->watch(call);
  try {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    if (spec_.most_blocks > 0) config.maxCTAs = spec_.most_blocks;
    settle("ncclCommInitRankConfig", call->name, rank_->guarded([&] {
      return ncclCommInitRankConfig(&comm_, static_cast<int>(spec_.members.size()), id, spec_.self, &config);
    }));
  } catch (...) {
    rank_->give_up(*call);
    if (comm_ != nullptr) ncclCommAbort(comm_);
    throw;
  }
  rank_->give_up(*call);
  rank_->add(*this);
}

Channel::~Channel() {
  const bool flushed = !unwinding_() && flush();
  rank_->remove(*this);
  if (flushed) {
    ncclCommDestroy(comm_);
  } else if (comm_ != nullptr) {
    ncclCommAbort(comm_);
  }
}

// Waits for what is under way, and for the peers to do the same; false when the rank has failed.
bool Channel::flush() {
  const CallPtr call = rank_->take({Collective::barrier, spec_.axis, "the end of a communicator"});
  bool flushed = false;
  rank_->watch(call);
  try {
    settle("ncclCommFinalize", call->name, rank_->guarded([&] { return ncclCommFinalize(comm_); }));
    flushed = true;
  } catch (const std::exception& error) {
    rank_->fail(error.what());
  }
  rank_->give_up(*call);
  return flushed;
}

CallPtr Channel::begin(cudaStream_t after, Entry entry) {
  rank_->check();
  CallPtr call = rank_->take(entry.call);
  if (book_) {
    call->book = book_;
    call->number = rank_->peers().ledger->post(*book_, spec_.self, std::move(entry));
  }
  after_.record(after);
  after_.hold(stream_.get());
  call->begun.record(stream_.get());
  rank_->watch(call);
  return call;
}

void Channel::end(Call& call) {
  call.ended.record(stream_.get());
  rank_->set_issued(call);
}

// A call that was not issued whole may be on the stream all the same, and its buffers will be dropped.
void Channel::abandon(Call& call, const char* reason) {
  rank_->give_up(call);
  rank_->fail(reason);
  call.ended.record(stream_.get());
  Rank::outlast(call);
}

void Channel::also_of(const std::string& axis) {
  rank_->guarded([&] {
    if (std::find(axes_.begin(), axes_.end(), axis) == axes_.end()) axes_.push_back(axis);
  });
}

void Channel::settle(const char* function, const CallName& call, ncclResult_t result) const {
  for (int polls = 0; result == ncclInProgress; ++polls) {
    pause(polls);
    rank_->guarded([&] {
      const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
      if (asked != ncclSuccess) result = asked;
    });
  }
  if (result == ncclSuccess) return;
  throw runtime_failure("{}", rank_->guarded([&] { return blame(function, call.str(), result); }));
}

std::string Channel::blame(const char* function, const std::string& call, ncclResult_t result) const {
  const char* detail = ncclGetLastError(comm_);
  const bool silent = detail == nullptr || *detail == '\0';
  return fmt::format("rank {}: {} in {}: {}{}{}", rank_->world_rank(), function, call, ncclGetErrorString(result),
                     silent ? "" : ": ", silent ? "" : detail);
}

std::string Channel::async_error() const {
  ncclResult_t result = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
  if (asked != ncclSuccess) result = asked;
  if (result == ncclSuccess || result == ncclInProgress) return {};
  return blame("NCCL", fmt::format("a call of ax{} {}", axes_.size() == 1 ? "is" : "es", fmt::join(axes_, ", ")),
               result);
}

void Channel::abort() {
  if (comm_ == nullptr) return;
  ncclCommAbort(comm_);
  comm_ = nullptr;
}

}  // namespace sluice::nccl
