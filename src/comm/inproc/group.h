// Group: what the ranks of one inproc communicator share. A collective is a meeting: each rank posts what it brings,
// waits for all, moves its own share of the data out of the others' buffers, and goes on when all have finished. Where
// the shares are small, the last rank to come moves them all: that takes less time than to wake the others for it.
// A message is moved by whichever of sender and receiver comes second, so neither waits for the other's wait.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>

#include "comm/inproc/mover.h"
#include "comm/job.h"

namespace sluice {

// What a rank brings to a collective. The fields up to `variant` are equal on all ranks.
struct Post {
  CallName call;
  DType dtype = DType::f32;
  int64_t elements = 0;  // of the tensor that is equal on all ranks (all_to_all_v: of one row)
  int variant = 0;       // root, or the ReduceOp
  const void* in = nullptr;
  void* out = nullptr;
  size_t bytes = 0;  // of the rank's share: what is read or written to move it
  std::vector<int64_t> in_counts;
  std::vector<int64_t> out_counts;
  MarkPtr ready;  // the buffers hold what was put into them

  bool matches(const Post& other) const;
  std::string str() const;  // "all_gather of block 3, f32 x 12"
};

// One side of a message.
struct Transfer {
  enum class State { posted, moving, done };
  CallName call;
  int rank = 0;  // in the group
  int peer = 0;
  int tag = 0;
  Tensor data;
  MarkPtr ready;                            // the buffer may be read, or written
  MarkPtr moved;                            // once done: the data has been moved
  std::atomic<State> state{State::posted};  // leaves `posted` under the group's mutex
  Bell changed;
};

class Group {
 public:
  Group(Job& job, std::string axis, std::vector<int> members);
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  using Posts = std::vector<const Post*>;
  // Moves the shares of ranks `first` to `last` - 1 by `mover`.
  using Move = void (*)(const Group& group, const Posts& posts, int first, int last, Mover& mover);
  // `move` runs when all ranks have posted, and its mover begins when all buffers are ready; nobody returns before all
  // shares have been moved. Returns the marks after the ranks' moves; none on the host.
  std::vector<MarkPtr> meet(int rank, const Post& post, Mover& mover, Move move);

  // Posts one side of a message and moves it if the other side is there.
  std::shared_ptr<Transfer> start(const CallName& call, int rank, int peer, int tag, const Tensor& data, MarkPtr ready,
                                  Mover& mover);
  void finish(Transfer& transfer);
  // Takes an unfinished message back; returns when nobody uses its buffer.
  void withdraw(Transfer& transfer);

  Job& job() const { return job_; }
  const std::string& axis() const { return axis_; }
  const std::vector<int>& members() const { return members_; }
  int world_rank(int rank) const { return members_[static_cast<size_t>(rank)]; }

 private:
  using Key = std::tuple<int, int, int>;  // sender, receiver, tag
  static Key key_of(const Transfer& transfer);
  // Returns the number of the collective that the rank is in, and whether all have come.
  std::pair<int64_t, bool> arrive(int rank, const Post& post, std::optional<Job::Waiting>& waiting);
  void await_all(int64_t round, const Job::Waiting& waiting);
  void move_all(int rank, int64_t round, Mover& mover, Move move);
  bool small() const;

  Job& job_;
  std::string axis_;
  std::vector<int> members_;

  // Of the collectives; a collective's number is its round, from 1.
  std::mutex mutex_;  // also of posted_. Data is never moved under it
  Posts posts_;
  std::vector<int64_t> rounds_;    // collectives each rank has posted
  int64_t arrived_ = 0;            // sum of rounds_
  int first_ = 0;                  // the rank that came first to the present collective
  Bell bell_;                      // rings when one of the next two has reached what ranks wait for
  std::atomic<int64_t> open_{0};   // rounds in which all have come: the others' buffers may be read
  std::atomic<int64_t> moved_{0};  // shares moved, in all rounds
  std::vector<MarkPtr> moves_;     // the mark after each rank's last move; of this round until it is over
  bool failed_ = false;            // one rank moved for all and could not: the data of none is complete

  // Sides that wait for the other, those of one key in the order they came; all of one key are of the same kind.
  std::multimap<Key, std::shared_ptr<Transfer>> posted_;
};

}  // namespace sluice
