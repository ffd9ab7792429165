#include "comm/inproc/group.h"

#include <algorithm>

namespace sluice {

bool Post::matches(const Post& other) const {
  return kind == other.kind && what == other.what && dtype == other.dtype && elements == other.elements &&
         variant == other.variant;
}

std::string Post::str() const {
  std::string text = fmt::format("{} of {}", name_of(kind), what);
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
      moves_(members_.size()),
      rounds_(members_.size(), 0) {}

std::vector<MarkPtr> Group::meet(int rank, const Post& post, Mover& mover,
                                 const std::function<void(const Posts&)>& move) {
  const auto n = static_cast<int64_t>(members_.size());
  const CallName call{post.kind, axis_, post.what};
  Job::Lock lock = job_.lock();
  job_.check(lock, world_rank(rank), call);
  if (arrived_ % n == 0) {
    first_ = rank;
  } else if (const Post& first = *posts_[static_cast<size_t>(first_)]; !post.matches(first)) {
    const Error error(
        ErrorKind::internal,
        fmt::format("rank {} and rank {} do not agree on axis {}: rank {} is in {}, rank {} in {}", world_rank(first_),
                    world_rank(rank), axis_, world_rank(first_), first.str(), world_rank(rank), post.str()));
    job_.fail_with(lock, world_rank(rank), error);
  }
  posts_[static_cast<size_t>(rank)] = &post;
  const int64_t round = ++rounds_[static_cast<size_t>(rank)];
  if (++arrived_ == round * n) changed_.notify_all();
  job_.wait(
      lock, changed_, world_rank(rank), call, [&] { return arrived_ >= round * n; },
      [&] {
        std::vector<int> missing;
        for (size_t r = 0; r < members_.size(); ++r) {
          if (rounds_[r] < round) missing.push_back(members_[r]);
        }
        return missing;
      });

  // From here on all ranks go through to the end, whatever fails: the buffers stay until everybody has read them.
  lock.unlock();
  std::exception_ptr failure;
  MarkPtr mark;
  try {
    for (const Post* p : posts_) mover.wait(p->ready);
    move(posts_);
    mark = mover.mark();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) job_.fail(world_rank(rank), failure);
  lock.lock();
  moves_[static_cast<size_t>(rank)] = std::move(mark);
  if (++moved_ == round * n) changed_.notify_all();
  changed_.wait(lock, [&] { return moved_ >= round * n; });
  if (failure) {
    lock.unlock();
    std::rethrow_exception(failure);
  }
  return moves_;
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

  Job::Lock lock = job_.lock();
  job_.check(lock, world_rank(rank), mine->call);
  auto& queue = posted_[key_of(*mine)];
  if (queue.empty() || queue.front()->call.kind == kind) {
    queue.push_back(mine);
    return mine;
  }
  const std::shared_ptr<Transfer> other = queue.front();
  if (other->data.dtype() != data.dtype() || other->data.numel() != data.numel()) {
    const auto side = [&](const Transfer& t) {
      return fmt::format("rank {} is in {} with {}, tag {}", world_rank(t.rank), t.call.str(), t.data.str(), t.tag);
    };
    job_.fail_with(lock, world_rank(rank),
                   Error(ErrorKind::internal, fmt::format("rank {} and rank {} do not agree: {}, {}", world_rank(peer),
                                                          world_rank(rank), side(*other), side(*mine))));
  }
  queue.pop_front();
  other->state = mine->state = Transfer::State::moving;
  lock.unlock();
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
  lock.lock();
  other->moved = mine->moved = mark;
  other->state = mine->state = Transfer::State::done;
  other->changed.notify_all();
  lock.unlock();
  if (failure) std::rethrow_exception(failure);
  return mine;
}

void Group::finish(Transfer& t) {
  Job::Lock lock = job_.lock();
  try {
    job_.wait(
        lock, t.changed, world_rank(t.rank), t.call, [&] { return t.state == Transfer::State::done; },
        [&] { return std::vector<int>{world_rank(t.peer)}; });
  } catch (...) {
    withdraw_locked(lock, t);
    throw;
  }
}

void Group::withdraw(Transfer& t) {
  Job::Lock lock = job_.lock();
  withdraw_locked(lock, t);
}

void Group::withdraw_locked(Job::Lock& lock, Transfer& t) {
  if (t.state == Transfer::State::posted) {
    std::erase_if(posted_[key_of(t)], [&](const auto& other) { return other.get() == &t; });
    t.state = Transfer::State::done;
  }
  t.changed.wait(lock, [&] { return t.state == Transfer::State::done; });
}

}  // namespace sluice
