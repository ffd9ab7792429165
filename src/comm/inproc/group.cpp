#include "comm/inproc/group.h"

#include <algorithm>

namespace sluice {

namespace {

// To copy this much takes about as long as to wake a rank.
constexpr size_t kSmallShare = size_t{32} << 10;

}  // namespace

bool Post::matches(const Post& other) const {
  return call == other.call && dtype == other.dtype && elements == other.elements && variant == other.variant;
}

std::string Post::str() const {
  const Collective kind = call.kind;
  std::string text = fmt::format("{} of {}", name_of(kind), call.what);
  if (kind == Collective::barrier) return text;
  text += fmt::format(", {} x {}{}", name_of(dtype), elements, kind == Collective::all_to_all_v ? " a row" : "");
  if (kind == Collective::broadcast) text += fmt::format(", root {}", variant);
  if (kind == Collective::all_reduce) text += variant == static_cast<int>(ReduceOp::sum) ? ", sum" : ", max";
  return text;
}

Group::Group(Job& job, std::string axis, std::vector<int> members)
    : job_(job),
      axis_(std::move(axis)),
      members_(std::move(members)),
      posts_(members_.size(), nullptr),
      rounds_(members_.size(), 0),
      moves_(members_.size()) {}

std::vector<MarkPtr> Group::meet(int rank, const Post& post, Mover& mover, Move move) {
  const int self = world_rank(rank);
  const auto n = static_cast<int64_t>(members_.size());
  std::optional<Job::Waiting> waiting;
  const auto [round, last] = arrive(rank, post, waiting);
  if (last) {
    if (mover.immediate() && small()) {
      move_all(rank, round, mover, move);
      return {};
    }
    open_.store(round);
    bell_.ring();
  } else {
    await_all(round, *waiting);
    waiting.reset();
    if (moved_.load() == round * n) {  // by the last to come: this rank's own share is not among them otherwise
      if (failed_) job_.check(self, post.call);
      return {};
    }
  }

  std::exception_ptr failure;
  MarkPtr mark;
  try {
    for (const Post* p : posts_) mover.wait(p->ready);
    move(*this, posts_, rank, rank + 1, mover);
    mark = mover.mark();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) job_.fail(self, failure);
  moves_[static_cast<size_t>(rank)] = std::move(mark);
  if (moved_.fetch_add(1) + 1 == round * n) {
    bell_.ring();
  } else {
    bell_.sleep_until([&] { return moved_.load() >= round * n; });
  }
  if (failure) std::rethrow_exception(failure);
  return mover.immediate() ? std::vector<MarkPtr>() : moves_;
}

// A rank is in the register of those that wait from the moment it has posted.
std::pair<int64_t, bool> Group::arrive(int rank, const Post& post, std::optional<Job::Waiting>& waiting) {
  const int self = world_rank(rank);
  const auto n = static_cast<int64_t>(members_.size());
  const std::lock_guard guard(mutex_);
  job_.check(self, post.call);
  if (arrived_ % n == 0) {
    first_ = rank;
  } else if (const Post& first = *posts_[static_cast<size_t>(first_)]; !post.matches(first)) {
    const Error error(ErrorKind::internal,
                      fmt::format("rank {} and rank {} do not agree on axis {}: rank {} is in {}, rank {} in {}",
                                  world_rank(first_), self, axis_, world_rank(first_), first.str(), self, post.str()));
    job_.fail_with(self, error);
  }
  posts_[static_cast<size_t>(rank)] = &post;
  const int64_t round = ++rounds_[static_cast<size_t>(rank)];
  const bool last = ++arrived_ == round * n;
  if (!last) waiting.emplace(job_, self, post.call, bell_);
  return {round, last};
}

void Group::await_all(int64_t round, const Job::Waiting& waiting) {
  const auto missing = [&] {
    const std::lock_guard guard(mutex_);
    std::vector<int> list;
    for (size_t r = 0; r < members_.size(); ++r) {
      if (rounds_[r] < round) list.push_back(members_[r]);
    }
    return list;
  };
  try {
    job_.wait(waiting, [&] { return open_.load() >= round; }, missing);
  } catch (...) {
    // The buffers must stay until everybody has read them: once all have come, all ranks go through to the end,
    // whatever fails. Otherwise nobody comes any more, because the job has failed.
    if (!missing().empty()) throw;
    bell_.sleep_until([&] { return open_.load() >= round; });
  }
}

// Moves the shares of all ranks, which wait for it.
void Group::move_all(int rank, int64_t round, Mover& mover, Move move) {
  const auto n = static_cast<int>(members_.size());
  std::exception_ptr failure;
  try {
    move(*this, posts_, 0, n, mover);
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {
    job_.fail(world_rank(rank), failure);
    failed_ = true;
  }
  moved_.store(round * n);
  open_.store(round);
  bell_.ring();
  if (failure) std::rethrow_exception(failure);
}

bool Group::small() const {
  size_t bytes = 0;
  for (const Post* post : posts_) bytes += post->bytes;
  return bytes <= kSmallShare * posts_.size();
}

Group::Key Group::key_of(const Transfer& t) {
  return t.call.kind == Collective::send ? Key(t.rank, t.peer, t.tag) : Key(t.peer, t.rank, t.tag);
}

std::shared_ptr<Transfer> Group::start(const CallName& call, int rank, int peer, int tag, const Tensor& data,
                                       MarkPtr ready, Mover& mover) {
  const Collective kind = call.kind;
  auto mine = std::make_shared<Transfer>();
  mine->call = call;
  mine->rank = rank;
  mine->peer = peer;
  mine->tag = tag;
  mine->data = data;
  mine->ready = std::move(ready);

  std::shared_ptr<Transfer> other;
  {
    const std::lock_guard guard(mutex_);
    job_.check(world_rank(rank), mine->call);
    const auto oldest = posted_.lower_bound(key_of(*mine));
    if (oldest == posted_.end() || oldest->first != key_of(*mine) || oldest->second->call.kind == kind) {
      posted_.emplace(key_of(*mine), mine);  // behind others of its key
      return mine;
    }
    other = oldest->second;
    if (other->data.dtype() != data.dtype() || other->data.numel() != data.numel()) {
      const auto side = [&](const Transfer& t) {
        return fmt::format("rank {} is in {} with {}, tag {}", world_rank(t.rank), t.call.str(), t.data.str(), t.tag);
      };
      job_.fail_with(world_rank(rank), Error(ErrorKind::internal,
                                             fmt::format("rank {} and rank {} do not agree: {}, {}", world_rank(peer),
                                                         world_rank(rank), side(*other), side(*mine))));
    }
    posted_.erase(oldest);
    other->state = mine->state = Transfer::State::moving;
  }
  const Tensor& from = kind == Collective::send ? mine->data : other->data;
  const Tensor& to = kind == Collective::send ? other->data : mine->data;
  std::exception_ptr failure;
  MarkPtr mark;
  try {
    mover.wait(mine->ready);
    mover.wait(other->ready);
    mover.copy(to.raw(), from.raw(), from.bytes());
    mark = mover.mark();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) job_.fail(world_rank(rank), failure);
  other->moved = mine->moved = mark;
  other->state = mine->state = Transfer::State::done;
  other->changed.ring();
  if (failure) std::rethrow_exception(failure);
  return mine;
}

void Group::finish(Transfer& t) {
  const auto done = [&] { return t.state.load() == Transfer::State::done; };
  if (done()) return;
  try {
    const Job::Waiting waiting(job_, world_rank(t.rank), t.call, t.changed);
    job_.wait(waiting, done, [&] { return std::vector<int>{world_rank(t.peer)}; });
  } catch (...) {
    withdraw(t);
    throw;
  }
}

void Group::withdraw(Transfer& t) {
  {
    const std::lock_guard guard(mutex_);
    if (t.state.load() == Transfer::State::posted) {
      const auto [begin, end] = posted_.equal_range(key_of(t));
      posted_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second.get() == &t; }));
      t.state = Transfer::State::done;
    }
  }
  t.changed.sleep_until([&] { return t.state.load() == Transfer::State::done; });
}

}  // namespace sluice
