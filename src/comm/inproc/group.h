// Group: what the ranks of one inproc communicator share. A collective is a meeting: each rank posts what it brings,
// waits for all, moves its own share of the data out of the others' buffers, and goes on when all have finished.
// A message is moved by whichever of sender and receiver comes second, so neither waits for the other's wait.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <tuple>

#include "comm/inproc/mover.h"
#include "comm/job.h"

namespace sluice {

// What a rank brings to a collective. The fields up to `inner` are equal on all ranks.
struct Post {
  Collective kind = Collective::barrier;
  std::string what;
  DType dtype = DType::f32;
  int64_t elements = 0;  // of the tensor that is equal on all ranks (all_to_all_v: of one row)
  int variant = 0;       // root, or the ReduceOp
  const void* in = nullptr;
  void* out = nullptr;
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
  MarkPtr ready;  // the buffer may be read, or written
  MarkPtr moved;  // once done: the data has been moved
  State state = State::posted;
  std::condition_variable changed;
};

class Group {
 public:
  Group(Job& job, std::string axis, std::vector<int> members);
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  using Posts = std::vector<const Post*>;
  // `move` runs when all ranks have posted, outside the lock, and by the rank's own mover, which begins when all
  // buffers are ready; nobody returns before all have moved. Returns the marks after the ranks' moves.
  std::vector<MarkPtr> meet(int rank, const Post& post, Mover& mover, const std::function<void(const Posts&)>& move);

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
  void withdraw_locked(Job::Lock& lock, Transfer& transfer);

  Job& job_;
  std::string axis_;
  std::vector<int> members_;

  std::condition_variable changed_;
  Posts posts_;
  std::vector<MarkPtr> moves_;   // the mark after each rank's last move
  std::vector<int64_t> rounds_;  // collectives each rank has posted
  int64_t arrived_ = 0;          // sum of rounds_
  int64_t moved_ = 0;
  int first_ = 0;  // the rank that came first to the present collective

  // Sides that wait for the other; all of one key are of the same kind.
  std::map<Key, std::deque<std::shared_ptr<Transfer>>> posted_;
};

}  // namespace sluice
