#include "comm/inproc/inproc.h"

#include <numeric>
#include <optional>

#include "base/log.h"
#include "comm/inproc/moves.h"
#include "comm/queued_work.h"

namespace sluice {

namespace {

// A collective that all ranks have moved, or put on their movers: its buffers are free after the marks.
class MovedWork final : public Work::Pending {
 public:
  MovedWork(Job& job, int rank, CallName call, std::shared_ptr<Mover> mover, std::vector<MarkPtr> marks)
      : job_(job), rank_(rank), call_(std::move(call)), mover_(std::move(mover)), marks_(std::move(marks)) {}
  ~MovedWork() override {
    if (!waited_) job_.dropped(rank_, call_, unwinding_());
  }
  void wait(Stream& stream) override {
    waited_ = true;
    for (const MarkPtr& mark : marks_) mover_->hold(stream, mark);
  }

 private:
  Job& job_;
  int rank_;
  CallName call_;
  std::shared_ptr<Mover> mover_;
  std::vector<MarkPtr> marks_;
  bool waited_ = false;
  UnwindingSince unwinding_;
};

class TransferWork final : public Work::Pending {
 public:
  TransferWork(Group& group, std::shared_ptr<Transfer> transfer, std::shared_ptr<Mover> mover)
      : group_(group), transfer_(std::move(transfer)), mover_(std::move(mover)) {}
  ~TransferWork() override {
    if (waited_) return;
    group_.withdraw(*transfer_);
    group_.job().dropped(group_.world_rank(transfer_->rank), transfer_->call, unwinding_());
  }
  void wait(Stream& stream) override {
    waited_ = true;
    group_.finish(*transfer_);
    mover_->hold(stream, transfer_->moved);
  }

 private:
  Group& group_;
  std::shared_ptr<Transfer> transfer_;
  std::shared_ptr<Mover> mover_;
  bool waited_ = false;
  UnwindingSince unwinding_;
};

class InprocCommunicator final : public Communicator {
 public:
  InprocCommunicator(InprocWorld& world, Group& group, int rank)
      : Communicator(group.axis(), group.members(), rank), world_(world), group_(group) {
    const MoverFactory& make = world.options().mover;
    mover_ = make ? make(world_rank()) : make_host_mover();
    if (world.options().async && size() > 1) worker_.emplace(world_rank(), size());
  }
  ~InprocCommunicator() override {
    const CallName call = name_call(Collective::barrier, "the end of its communicator");
    if (worker_ && unwinding_() && !worker_->idle()) world_.job().dropped(world_rank(), call, true);
  }
  bool real() const override { return true; }
  KernelSet transport() const override { return world_.options().mover ? Kernel::threads_on_gpu : Kernel::threads; }

 private:
  Work do_all_gather(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) override {
    Post post = make_post(Collective::all_gather, what, in.dtype(), in.numel());
    post.in = in.raw();
    post.out = out.raw();
    post.bytes = out.bytes();
    return meet(after, std::move(post), moves::gather);
  }

  Work do_reduce_scatter(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) override {
    Post post = make_post(Collective::reduce_scatter, what, out.dtype(), out.numel());
    post.in = in.raw();
    post.out = out.raw();
    post.bytes = in.bytes();
    return meet(after, std::move(post), moves::reduce_parts);
  }

  Work do_all_reduce(Stream& after, const Tensor& data, ReduceOp op, std::string_view what) override {
    Post post = make_post(Collective::all_reduce, what, data.dtype(), data.numel());
    post.variant = static_cast<int>(op);
    post.in = data.raw();
    post.out = data.raw();
    post.bytes = data.bytes();
    return meet(after, std::move(post), moves::reduce_all);
  }

  Work do_all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                       std::span<const int64_t> in_counts, std::string_view what) override {
    Post post = make_post(Collective::all_to_all_v, what, in.dtype(), (in.rank() > 0 ? in : out).shape().inner());
    post.in = in.raw();
    post.out = out.raw();
    post.bytes = out.bytes();
    post.in_counts.assign(in_counts.begin(), in_counts.end());
    post.out_counts.assign(out_counts.begin(), out_counts.end());
    return meet(after, std::move(post), moves::exchange_rows);
  }

  Work do_broadcast(Stream& after, const Tensor& data, int root, std::string_view what) override {
    Post post = make_post(Collective::broadcast, what, data.dtype(), data.numel());
    post.variant = root;
    post.in = data.raw();
    post.out = data.raw();
    post.bytes = data.bytes();
    return meet(after, std::move(post), moves::spread);
  }

  Work do_send(Stream& after, const Tensor& data, int to, int tag, std::string_view what) override {
    return transfer(after, Collective::send, data, to, tag, what);
  }
  Work do_recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what) override {
    return transfer(after, Collective::recv, data, from, tag, what);
  }

  void do_barrier(Stream& stream, std::string_view what) override {
    meet(stream, make_post(Collective::barrier, what, DType::u8, 0), moves::nothing).wait(stream);
  }

  void copy_local(Stream& after, const Tensor& out, const Tensor& in) override {
    mover_->copy_on(after, out.raw(), in.raw(), in.bytes());
  }

  std::unique_ptr<Communicator> do_split(std::string axis, std::vector<int> members, int rank) override {
    Group& part = world_.group(&group_, splits_++, world_rank(), axis, members);
    return std::make_unique<InprocCommunicator>(world_, part, rank);
  }

  Post make_post(Collective kind, std::string_view what, DType dtype, int64_t elements) const {
    Post post;
    post.call = name_call(kind, what);
    post.dtype = dtype;
    post.elements = elements;
    return post;
  }

  Work meet(const Stream& after, Post post, Group::Move move) {
    post.ready = mover_->mark(after);
    const auto run = [this, move](Post& mine) {
      auto marks = group_.meet(rank(), mine, *mover_, move);
      return Work(
          std::make_unique<MovedWork>(world_.job(), world_rank(), std::move(mine.call), mover_, std::move(marks)));
    };
    if (!worker_) return run(post);
    const CallName call = post.call;
    return queue(call, [run, mine = std::move(post)]() mutable { return run(mine); });
  }

  Work transfer(const Stream& after, Collective kind, const Tensor& data, int peer, int tag, std::string_view what) {
    CallName call = name_call(kind, what);
    auto run = [this, call, data, peer, tag, ready = mover_->mark(after)] {
      auto side = group_.start(call, rank(), peer, tag, data, ready, *mover_);
      return Work(std::make_unique<TransferWork>(group_, std::move(side), mover_));
    };
    return worker_ ? queue(call, std::move(run)) : run();
  }

  template <class Run>
  Work queue(const CallName& call, Run run) {
    return queue_work(*worker_, world_.job(), world_rank(), call, std::packaged_task<Work()>(std::move(run)));
  }

  InprocWorld& world_;
  Group& group_;
  std::shared_ptr<Mover> mover_;
  int splits_ = 0;
  UnwindingSince unwinding_;
  std::optional<Worker> worker_;
};

}  // namespace

InprocWorld::InprocWorld(int ranks, const InprocOptions& options) : options_(options) {
  require(ranks >= 1, "a world of {} ranks", ranks);
  ranks_.resize(static_cast<size_t>(ranks));
  std::iota(ranks_.begin(), ranks_.end(), 0);
  job_ = std::make_unique<Job>(ranks_, options.timeout_s);
}

InprocWorld::~InprocWorld() = default;

std::unique_ptr<Communicator> InprocWorld::communicator(int rank) {
  return std::make_unique<InprocCommunicator>(*this, group(nullptr, 0, rank, "world", ranks_), rank);
}

void InprocWorld::abort(int rank, const std::string& message) {
  job_->fail(rank, std::make_exception_ptr(runtime_failure("{}", message)));
}

void InprocWorld::run(const std::function<void(int rank)>& body) {
  job_->run(body);
}

Group& InprocWorld::group(const Group* parent, int sequence, int rank, const std::string& axis,
                          const std::vector<int>& members) {
  const std::lock_guard guard(groups_mutex_);
  std::unique_ptr<Group>& entry = groups_[{parent, sequence, members.front()}];
  if (!entry) entry = std::make_unique<Group>(*job_, axis, members);
  if (entry->axis() != axis || entry->members() != members) {
    const Error error(ErrorKind::internal,
                      fmt::format("rank {} splits axis {} of {}, another rank axis {} of {}", rank, axis,
                                  format_ranks(members), entry->axis(), format_ranks(entry->members())));
    job_->fail_with(rank, error);
  }
  return *entry;
}

void run_ranks(int ranks, const InprocOptions& options, const std::function<void(Communicator& world)>& body) {
  InprocWorld world(ranks, options);
  world.run([&](int rank) {
    const log::RankScope scope(rank, ranks);
    const std::unique_ptr<Communicator> communicator = world.communicator(rank);
    body(*communicator);
  });
}

}  // namespace sluice
