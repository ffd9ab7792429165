// Channel: one communicator of NCCL with a stream of its own. Its calls run in the order they are issued; those of
// different channels run beside each other. NCCL never blocks in here: its communicators are non-blocking, and the host
// polls where it must know that a call is on its stream.
#pragma once

#include <memory>
#include <string>

#include "comm/job.h"
#include "comm/nccl/rank.h"
#include "device/stream.h"

namespace sluice::nccl {

struct ChannelSpec {
  std::string name;          // equal on its ranks and no other channel's
  std::string axis;          // of the group that it was made for
  std::vector<int> members;  // ranks of the world
  int self = 0;              // this rank in `members`
  bool urgent = false;
  int most_blocks = 0;  // of a kernel; 0: NCCL's choice
};

class Channel {
 public:
  // Returns when all members are here.
  Channel(std::shared_ptr<Rank> rank, ChannelSpec spec, const ncclUniqueId& id);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // Runs enqueue(comm, stream), which makes NCCL's calls and returns their result, after everything on `after` so far.
  // `function` is what to blame. The entry goes to the ledger.
  template <class Enqueue>
  CallPtr issue(cudaStream_t after, Entry entry, const char* function, Enqueue&& enqueue) {
    const CallPtr call = begin(after, std::move(entry));
    try {
      settle(function, call->name, rank_->guarded([&] { return enqueue(comm_, stream_.get()); }));
      end(*call);
    } catch (const std::exception& error) {
      abandon(*call, error.what());
      throw;
    }
    return call;
  }

  cudaStream_t stream() const { return stream_.get(); }
  void* token() const { return token_.get(); }
  bool urgent() const { return spec_.urgent; }
  const std::vector<int>& members() const { return spec_.members; }
  // Another group has it too.
  void also_of(const std::string& axis);

  // By the Rank, under its lock. What NCCL found wrong since; empty if nothing.
  std::string async_error() const;
  void abort();

 private:
  CallPtr begin(cudaStream_t after, Entry entry);
  void end(Call& call);
  void abandon(Call& call, const char* reason);
  // Polls until the communicator has done what it was asked for.
  void settle(const char* function, const CallName& call, ncclResult_t result) const;
  std::string blame(const char* function, const std::string& call, ncclResult_t result) const;
  bool flush();

  std::shared_ptr<Rank> rank_;
  ChannelSpec spec_;
  std::vector<std::string> axes_;  // of all groups that have it; under the Rank's lock
  Ledger::BookPtr book_;
  Token token_;  // outlives what is on the stream
  CommStream stream_;
  Event after_;
  UnwindingSince unwinding_;
  ncclComm_t comm_ = nullptr;  // null when aborted
};

// The first result that is an error, else the last: for calls between ncclGroupStart and ncclGroupEnd.
class Grouped {
 public:
  Grouped() { keep(ncclGroupStart()); }
  void keep(ncclResult_t result) {
    if (result != ncclSuccess && result != ncclInProgress && error_ == ncclSuccess) error_ = result;
  }
  ncclResult_t end() {
    const ncclResult_t result = ncclGroupEnd();
    return error_ != ncclSuccess ? error_ : result;
  }

 private:
  ncclResult_t error_ = ncclSuccess;
};

}  // namespace sluice::nccl
