// Communicator: collectives among the ranks of one axis. Ranks are threads or, on meta, clocks; the code cannot tell.
// Counts are elements, taken from the tensors, which are dense. A collective is issued after everything on `after` so
// far and returns a Work; its buffers belong to it until it is waited for. All ranks of a group issue the same
// collectives in the same order; `what` names the call in errors ("block 3 dispatch"). Every wait has a watchdog that
// says which rank waits for whom in which collective; an exception on one rank ends all of them with that rank's
// message. Ranks in messages are those of the world.
// A group of one rank is the identity: the public calls handle it, transports do not see it unless they ask to.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "device/kernel_log.h"
#include "device/stream.h"
#include "tensor/tensor.h"

namespace sluice {

// Completion of a collective. Move-only; must be waited for (or be empty) before it is destroyed: one that is dropped
// fails the job, except while an exception unwinds.
class Work {
 public:
  class Pending {
   public:
    Pending() = default;
    Pending(const Pending&) = delete;
    Pending& operator=(const Pending&) = delete;
    virtual ~Pending() = default;
    // Returns when the buffers belong to the caller again; `stream` continues no earlier than the collective's end.
    virtual void wait(Stream& stream) = 0;
  };

  Work() = default;
  explicit Work(std::unique_ptr<Pending> pending) : pending_(std::move(pending)) {}
  bool pending() const { return pending_ != nullptr; }
  void wait(Stream& stream) {
    if (!pending_) return;
    const Stopwatch watch;
    pending_->wait(stream);
    pending_.reset();
    if (seconds_ != nullptr) *seconds_ += watch.seconds();
  }

 private:
  friend class Communicator;
  std::unique_ptr<Pending> pending_;
  double* seconds_ = nullptr;  // where the time of waiting counts
};

enum class ReduceOp : uint8_t { sum, max };

enum class Collective : uint8_t {
  all_gather,
  reduce_scatter,
  all_reduce,
  all_to_all_v,
  broadcast,
  send,
  recv,
  barrier
};
inline constexpr size_t kCollectives = 8;
std::string_view name_of(Collective kind);

// One call as it is named in messages: "all_to_all_v of block 31 dispatch (axis ep, step 12)".
struct CallName {
  Collective kind = Collective::barrier;
  std::string axis;
  std::string what;
  int64_t step = 0;  // 0: of none

  bool operator==(const CallName&) const = default;
  std::string str() const;
};

class Communicator {
 public:
  // `axis` is the name in messages: "world", "pp", "fsdp", "ep", ... `members` are the group's ranks as numbered in the
  // world, in the group's order; this one is members[rank].
  Communicator(std::string axis, std::vector<int> members, int rank);
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;
  virtual ~Communicator() = default;

  const std::string& axis() const { return axis_; }
  int rank() const { return rank_; }
  int size() const { return static_cast<int>(members_.size()); }
  // Ranks of the world, in the group's order.
  const std::vector<int>& members() const { return members_; }
  int world_rank() const { return members_[static_cast<size_t>(rank_)]; }
  // False where addresses are only numbers (meta): no buffer is read or written.
  virtual bool real() const = 0;
  // What carries its data between ranks; nothing where there is none (meta).
  virtual KernelSet transport() const = 0;
  // From now on calls are of this step of the run, counted from 1, here and in all that is split from this one.
  void begin_step(int64_t step) { rank_state_->step = step; }
  // How long this rank's thread has been in calls and in waiting for their ends, here and in all that comes from the
  // same world. On a GPU, where the device waits and not the host, it is next to nothing.
  double seconds_in_calls() const { return rank_state_->seconds; }
  // Throws if the job has failed on a device, where no call of this rank could say so: what that device then holds must
  // not be believed.
  virtual void check_alive() const {}

  // out = the ranks' `in`, concatenated in rank order. out has size() times as many elements. `in` may be the part of
  // `out` that is this rank's own.
  Work all_gather(Stream& after, const Tensor& out, const Tensor& in, std::string_view what);
  // out = this rank's part of the elementwise sum of the ranks' `in`, added in rank order (bf16: in f32, rounded once).
  // in has size() times as many elements as out. `out` may be the part of `in` that is this rank's own only if no
  // rank's `in` is read later. f64, f32, bf16, i64 or i32, as all_reduce.
  Work reduce_scatter(Stream& after, const Tensor& out, const Tensor& in, std::string_view what);
  // data = elementwise sum (added in rank order) or maximum (a NaN stays) over the ranks.
  Work all_reduce(Stream& after, const Tensor& data, ReduceOp op, std::string_view what);
  // Rows of dimension 0: in_counts[r] consecutive rows go to rank r; out receives out_counts[r] rows from rank r, in
  // rank order; the counts add up to the tensors' rows. Other dimensions agree on all ranks. The spans have size()
  // entries and may be dropped after the call.
  Work all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                    std::span<const int64_t> in_counts, std::string_view what);
  // data of every rank = data of `root`.
  Work broadcast(Stream& after, const Tensor& data, int root, std::string_view what);
  // Point to point with another rank. Messages between two ranks with the same tag arrive in order. Neither call blocks
  // on the peer: a send's buffer is read by the receiver, and wait() returns once it has been.
  Work send(Stream& after, const Tensor& data, int to, int tag, std::string_view what);
  Work recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what);
  void barrier(Stream& stream, std::string_view what);

  // Ranks with the same colour form a group, ordered by this group's rank. `color_of` is a function of the rank in this
  // group alone, equal on all ranks: nothing is communicated. All ranks split in the same order.
  std::unique_ptr<Communicator> split(std::string axis, const std::function<int(int rank)>& color_of);

 protected:
  CallName name_call(Collective kind, std::string_view what) const {
    return {kind, axis_, std::string(what), rank_state_->step};
  }

 private:
  // What a rank's communicators have in common; of the rank's thread.
  struct RankState {
    int64_t step = 0;
    double seconds = 0;
  };
  // The time of making the call, and of waiting for its end, counts.
  template <class Call>
  Work timed(Call&& call) const {
    const Stopwatch watch;
    Work work = std::forward<Call>(call)();
    rank_state_->seconds += watch.seconds();
    work.seconds_ = &rank_state_->seconds;
    return work;
  }

  virtual Work do_all_gather(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) = 0;
  virtual Work do_reduce_scatter(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) = 0;
  virtual Work do_all_reduce(Stream& after, const Tensor& data, ReduceOp op, std::string_view what) = 0;
  virtual Work do_all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                               std::span<const int64_t> in_counts, std::string_view what) = 0;
  virtual Work do_broadcast(Stream& after, const Tensor& data, int root, std::string_view what) = 0;
  virtual Work do_send(Stream& after, const Tensor& data, int to, int tag, std::string_view what) = 0;
  virtual Work do_recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what) = 0;
  virtual void do_barrier(Stream& stream, std::string_view what) = 0;
  // out = in, both this rank's, in the order of `after`. The default is for host memory.
  virtual void copy_local(Stream& after, const Tensor& out, const Tensor& in);
  // Whether the public calls do the work themselves. A transport that answers false for a group of one gets its calls.
  virtual bool alone() const { return size() == 1; }
  // `members` are ranks of the world; this one is members[rank].
  virtual std::unique_ptr<Communicator> do_split(std::string axis, std::vector<int> members, int rank) = 0;

  // Throws an internal error that names rank, call and axis unless `ok`.
  template <class... Args>
  void check(bool ok, Collective kind, std::string_view what, fmt::format_string<Args...> format,
             Args&&... args) const {
    if (!ok) refuse(kind, what, fmt::vformat(format, fmt::make_format_args(args...)));
  }
  [[noreturn]] void refuse(Collective kind, std::string_view what, const std::string& reason) const;
  void check_dense(Collective kind, std::string_view what, const Tensor& t, std::string_view name) const;
  void check_summable(Collective kind, std::string_view what, const Tensor& t) const;
  void check_rows(std::string_view what, const Tensor& t, std::span<const int64_t> counts, std::string_view name) const;
  void check_peer(Collective kind, std::string_view what, int peer) const;
  Work identity(Stream& after, const Tensor& out, const Tensor& in);

  std::string axis_;
  std::vector<int> members_;
  int rank_;
  std::shared_ptr<RankState> rank_state_ = std::make_shared<RankState>();
};

}  // namespace sluice
