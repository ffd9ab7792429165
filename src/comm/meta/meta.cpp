#include "comm/meta/meta.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

#include "base/log.h"
#include "comm/job.h"
#include "comm/meta/linked.h"

namespace sluice {

namespace {

// A call that ends at a known time.
class MetaWork : public Work::Pending {
 public:
  MetaWork(Job& job, int rank, CallName call, TrafficTotals& totals, double end, double seconds)
      : job_(job), rank_(rank), call_(std::move(call)), totals_(totals), end_(end), seconds_(seconds) {}
  ~MetaWork() override {
    if (!waited_) job_.dropped(rank_, call_, unwinding_());
  }
  void wait(Stream& stream) override {
    waited_ = true;
    learn_end();
    totals_.add_wait(end_ - stream.now(), seconds_);
    stream.wait_until(end_);
  }

 protected:
  // Sets end_ where other ranks decide it.
  virtual void learn_end() {}

  Job& job_;
  int rank_;
  CallName call_;
  TrafficTotals& totals_;
  double end_;
  double seconds_;

 private:
  bool waited_ = false;
  UnwindingSince unwinding_;
};

// A receive from a linked rank.
class MessageWork final : public MetaWork {
 public:
  MessageWork(Job& job, int rank, CallName call, TrafficTotals& totals, double issued, double seconds, int from,
              Channel& channel, std::string tensor)
      : MetaWork(job, rank, std::move(call), totals, issued, seconds),
        from_(from),
        channel_(channel),
        number_(channel.expect()),
        tensor_(std::move(tensor)) {}

 private:
  void learn_end() override { end_ = std::max(end_, channel_.take(job_, number_, rank_, from_, call_, tensor_)); }

  int from_;
  Channel& channel_;
  int64_t number_;
  std::string tensor_;
};

// A collective with linked ranks.
class MeetingWork final : public MetaWork {
 public:
  MeetingWork(Job& job, int rank, CallName call, TrafficTotals& totals, Meeting& meeting, int64_t number)
      : MetaWork(job, rank, std::move(call), totals, 0, 0), meeting_(meeting), number_(number) {}

 private:
  void learn_end() override {
    const Meeting::End end = meeting_.take(job_, number_, rank_, call_);
    end_ = end.time;
    seconds_ = end.seconds;
    totals_.seconds += end.seconds;
  }

  Meeting& meeting_;
  int64_t number_;
};

}  // namespace

struct MetaWorld::State {
  State(const NetworkModel& model, int world_size, std::vector<int> linked_ranks, double timeout_s)
      : network(model), size(world_size), linked(std::move(linked_ranks)), job(linked, timeout_s) {}

  Channel& channel(const std::string& axis, int from, int to, int tag) {
    const std::lock_guard guard(mutex);
    return channels[{axis, from, to, tag}];
  }
  // What `rank`'s group shares; null if no other member is linked.
  Meeting* meeting(const std::string& axis, const std::vector<int>& members, int rank) {
    std::vector<int> present;
    std::copy_if(members.begin(), members.end(), std::back_inserter(present), [&](int r) { return is_linked(r); });
    if (present.size() < 2 || !is_linked(rank)) return nullptr;
    const std::lock_guard guard(mutex);
    return &meetings.try_emplace({axis, members}, present).first->second;
  }
  Traffic& traffic_of(int rank) {
    const std::lock_guard guard(mutex);
    return traffic[rank];
  }
  bool is_linked(int rank) const { return std::find(linked.begin(), linked.end(), rank) != linked.end(); }

  NetworkModel network;
  int size;
  std::vector<int> linked;
  Job job;
  std::mutex mutex;                                                      // of the maps
  std::map<std::tuple<std::string, int, int, int>, Channel> channels;    // by axis, sender, receiver, tag
  std::map<std::pair<std::string, std::vector<int>>, Meeting> meetings;  // by axis and members
  std::map<int, Traffic> traffic;                                        // by rank
};

class MetaCommunicator final : public Communicator {
 public:
  MetaCommunicator(MetaWorld::State& state, std::string axis_name, std::vector<int> group, int rank_in_group)
      : Communicator(std::move(axis_name), std::move(group), rank_in_group),
        state_(state),
        cost_(state.network, members(), rank()),
        meeting_(state.meeting(axis(), members(), world_rank())),
        traffic_(state.traffic_of(world_rank()).axis(axis())) {}

  bool real() const override { return false; }
  KernelSet transport() const override { return {}; }

 private:
  Work do_all_gather(Stream& after, const Tensor& out, const Tensor&, std::string_view what) override {
    return charge(after, Collective::all_gather, what, others(out), cost_.all_gather(bytes_of(out)));
  }
  Work do_reduce_scatter(Stream& after, const Tensor&, const Tensor& in, std::string_view what) override {
    return charge(after, Collective::reduce_scatter, what, others(in), cost_.all_gather(bytes_of(in)));
  }
  Work do_all_reduce(Stream& after, const Tensor& data, ReduceOp, std::string_view what) override {
    return charge(after, Collective::all_reduce, what, 2 * others(data), cost_.all_reduce(bytes_of(data)));
  }
  Work do_all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                       std::span<const int64_t> in_counts, std::string_view what) override {
    std::vector<double> sent(in_counts.begin(), in_counts.end());
    std::vector<double> received(out_counts.begin(), out_counts.end());
    sent[static_cast<size_t>(rank())] = received[static_cast<size_t>(rank())] = 0;
    const auto row =
        static_cast<double>((in.rank() > 0 ? in : out).shape().inner()) * static_cast<double>(size_of(in.dtype()));
    const auto to_bytes = [&](std::vector<double>& rows) {
      for (double& r : rows) r *= row;
      return std::accumulate(rows.begin(), rows.end(), 0.0);
    };
    const double bytes = std::max(to_bytes(sent), to_bytes(received));
    return charge(after, Collective::all_to_all_v, what, bytes, cost_.all_to_all(sent, received));
  }
  Work do_broadcast(Stream& after, const Tensor& data, int, std::string_view what) override {
    return charge(after, Collective::broadcast, what, bytes_of(data), cost_.broadcast(bytes_of(data)));
  }
  void do_barrier(Stream& stream, std::string_view what) override {
    charge(stream, Collective::barrier, what, 0, cost_.barrier()).wait(stream);
  }

  Work do_send(Stream& after, const Tensor& data, int to, int tag, std::string_view what) override {
    const CallName call = begin(Collective::send, what);
    const int receiver = members()[static_cast<size_t>(to)];
    const LinkModel& link = state_.network.link(world_rank(), receiver);
    send_link_.wait_until(after.now());
    send_link_.advance(link.seconds(bytes_of(data)));
    const double arrival = send_link_.now() + link.latency_s;
    if (state_.is_linked(receiver)) {
      state_.channel(axis(), world_rank(), receiver, tag).send(arrival, data.str());
    }
    const double seconds = link.seconds(bytes_of(data)) + link.latency_s;
    TrafficTotals& totals = add(Collective::send, bytes_of(data), seconds);
    return Work(std::make_unique<MetaWork>(state_.job, world_rank(), call, totals, arrival, seconds));
  }

  Work do_recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what) override {
    const CallName call = begin(Collective::recv, what);
    const int sender = members()[static_cast<size_t>(from)];
    const LinkModel& link = state_.network.link(world_rank(), sender);
    const double seconds = link.seconds(bytes_of(data)) + link.latency_s;
    TrafficTotals& totals = add(Collective::recv, bytes_of(data), seconds);
    if (state_.linked.empty()) {
      return Work(std::make_unique<MetaWork>(state_.job, world_rank(), call, totals, after.now(), seconds));
    }
    require(state_.is_linked(sender), "rank {} waits in {} for rank {}, which is not simulated", world_rank(),
            call.str(), sender);
    Channel& channel = state_.channel(axis(), sender, world_rank(), tag);
    return Work(std::make_unique<MessageWork>(state_.job, world_rank(), call, totals, after.now(), seconds, sender,
                                              channel, data.str()));
  }

  std::unique_ptr<Communicator> do_split(std::string axis_name, std::vector<int> group, int rank_in_group) override {
    return std::make_unique<MetaCommunicator>(state_, std::move(axis_name), std::move(group), rank_in_group);
  }

  static double bytes_of(const Tensor& t) { return static_cast<double>(t.bytes()); }
  // What of a tensor that all ranks share in equal parts is of the others.
  double others(const Tensor& t) const { return bytes_of(t) * (size() - 1) / size(); }

  CallName begin(Collective kind, std::string_view what) const {
    CallName call = name_call(kind, what);
    state_.job.check(world_rank(), call);
    return call;
  }

  TrafficTotals& add(Collective kind, double bytes, double seconds) {
    TrafficTotals& totals = traffic_[static_cast<size_t>(kind)];
    totals += {.calls = 1, .bytes = bytes, .seconds = seconds};
    return totals;
  }

  Work charge(Stream& after, Collective kind, std::string_view what, double bytes, double seconds) {
    const CallName call = begin(kind, what);
    if (meeting_ != nullptr) {
      const int64_t number = meeting_->issue(state_.job, world_rank(), call, after.now(), seconds);
      TrafficTotals& totals = add(kind, bytes, 0);
      return Work(std::make_unique<MeetingWork>(state_.job, world_rank(), call, totals, *meeting_, number));
    }
    stream_.wait_until(after.now());
    stream_.advance(seconds);
    TrafficTotals& totals = add(kind, bytes, seconds);
    return Work(std::make_unique<MetaWork>(state_.job, world_rank(), call, totals, stream_.now(), seconds));
  }

  MetaWorld::State& state_;
  GroupCost cost_;
  Meeting* meeting_;  // null: no other member is linked
  Traffic::ByKind& traffic_;
  Stream stream_;     // collectives
  Stream send_link_;  // messages on their way out
};

MetaWorld::MetaWorld(const NetworkModel& network, int size, std::vector<int> linked, double timeout_s) {
  require(size >= 1, "a world of {} ranks", size);
  for (const int rank : linked) require(rank >= 0 && rank < size, "rank {} of a world of {}", rank, size);
  state_ = std::make_unique<State>(network, size, std::move(linked), timeout_s);
}

MetaWorld::~MetaWorld() = default;

std::unique_ptr<Communicator> MetaWorld::communicator(int rank) {
  std::vector<int> all(static_cast<size_t>(state_->size));
  std::iota(all.begin(), all.end(), 0);
  return std::make_unique<MetaCommunicator>(*state_, "world", std::move(all), rank);
}

void MetaWorld::run(const std::function<void(Communicator& world)>& body) {
  state_->job.run([&](int rank) {
    const log::RankScope scope(rank, state_->size);
    const std::unique_ptr<Communicator> world = communicator(rank);
    body(*world);
  });
}

Traffic& MetaWorld::traffic(int rank) {
  return state_->traffic_of(rank);
}

}  // namespace sluice
