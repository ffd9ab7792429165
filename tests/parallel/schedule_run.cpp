#include "schedule_run.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace sluice {
namespace {

using enum ActionKind;

Error broken(const Schedule& schedule, const std::string& what) {
  return {ErrorKind::internal, fmt::format("schedule {} ({} stages, {} chunks, {} micro-batches): {}", schedule.name,
                                           schedule.stages, schedule.chunks, schedule.micro_batches, what)};
}

// A message between ranks: the action that produced it and when it was there.
struct Message {
  Action from;
  double time;
};

class Runner {
 public:
  Runner(const Schedule& schedule, const ActionTimes& times)
      : schedule_(schedule),
        times_(times),
        ranks_(schedule.stages),
        activations_(schedule.stages),
        gradients_(schedule.stages),
        forward_done_(cells()),
        backward_done_(cells()) {}

  Timeline run() {
    Timeline timeline;
    timeline.ranks.resize(ranks_);
    std::vector<std::size_t> next(ranks_, 0);
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < ranks_; ++rank) {
        const std::vector<Action>& order = schedule_.ranks[rank];
        std::vector<Timeline::Span>& spans = timeline.ranks[rank];
        for (; next[rank] < order.size() && !waits_for(rank, order[next[rank]]); ++next[rank]) {
          spans.push_back(perform(rank, order[next[rank]], spans.empty() ? 0 : spans.back().end));
          timeline.end = std::max(timeline.end, spans.back().end);
          moved = true;
        }
      }
    }
    for (int rank = 0; rank < ranks_; ++rank) {
      if (next[rank] < schedule_.ranks[rank].size()) throw stuck(rank, next);
    }
    for (int rank = 0; rank < ranks_; ++rank) {
      if (activations_[rank].empty() && gradients_[rank].empty()) continue;
      const std::deque<Message>& left = activations_[rank].empty() ? gradients_[rank] : activations_[rank];
      throw broken(schedule_, fmt::format("rank {} never receives the result of {}", rank, left.front().from.str()));
    }
    return timeline;
  }

 private:
  std::size_t cells() const {
    return static_cast<std::size_t>(schedule_.stages) * schedule_.chunks * schedule_.micro_batches;
  }
  std::size_t cell(int rank, const Action& action) const {
    return (static_cast<std::size_t>(rank) * schedule_.chunks + action.chunk) * schedule_.micro_batches +
           action.micro_batch;
  }
  int next_rank(int rank) const { return (rank + 1) % ranks_; }
  int previous_rank(int rank) const { return (rank + ranks_ - 1) % ranks_; }
  bool first_stage(int rank, const Action& action) const { return rank == 0 && action.chunk == 0; }
  bool last_stage(int rank, const Action& action) const {
    return rank == ranks_ - 1 && action.chunk == schedule_.chunks - 1;
  }

  // What the action receives from another rank: the queue, and the chunk of the sender.
  struct Input {
    std::deque<Message>* queue;
    int rank;
    int chunk;
  };
  std::optional<Input> input(int rank, const Action& action) {
    if (action.kind == weight) return std::nullopt;
    if (action.kind == forward) {
      if (first_stage(rank, action)) return std::nullopt;
      return Input{&activations_[rank], previous_rank(rank), rank == 0 ? action.chunk - 1 : action.chunk};
    }
    if (last_stage(rank, action)) return std::nullopt;
    return Input{&gradients_[rank], next_rank(rank), rank == ranks_ - 1 ? action.chunk + 1 : action.chunk};
  }

  // Why an action cannot run now, and the rank that could change that.
  struct Wait {
    std::string why;
    int rank;
  };
  std::optional<Wait> waits_for(int rank, const Action& action) {
    if (action.kind == weight && !backward_done_[cell(rank, action)]) return Wait{"its B has not run", rank};
    if (action.kind != forward && action.kind != weight && !forward_done_[cell(rank, action)])
      return Wait{"its F has not run", rank};
    const std::optional<Input> in = input(rank, action);
    if (!in) return std::nullopt;
    const Message* const head = in->queue->empty() ? nullptr : &in->queue->front();
    if (head && head->from.chunk == in->chunk && head->from.micro_batch == action.micro_batch) return std::nullopt;
    const char* const kind = action.kind == forward ? "F" : "B";
    const std::string sender = fmt::format("{}{}.{} of rank {}", kind, in->chunk, action.micro_batch, in->rank);
    if (!head) return Wait{fmt::format("{} has not run", sender), in->rank};
    return Wait{fmt::format("it needs {}, but {} arrives first", sender, head->from.str()), rank};
  }

  // The cause found by following who waits for whom from `rank`: an order wrong in itself, or else a circle of ranks.
  Error stuck(int rank, const std::vector<std::size_t>& next) {
    std::vector<bool> seen(ranks_, false);
    for (;;) {
      const Action& action = schedule_.ranks[rank][next[rank]];
      const Wait wait = *waits_for(rank, action);
      const bool other_is_stuck = wait.rank != rank && next[wait.rank] < schedule_.ranks[wait.rank].size();
      if (!other_is_stuck || seen[rank]) {
        return broken(schedule_, fmt::format("rank {} can never run {} (action {}): {}", rank, action.str(), next[rank],
                                             wait.why));
      }
      seen[rank] = true;
      rank = wait.rank;
    }
  }

  Timeline::Span perform(int rank, const Action& action, double rank_free) {
    double begin = rank_free;
    if (const std::optional<Input> in = input(rank, action)) {
      begin = std::max(begin, in->queue->front().time);
      in->queue->pop_front();
    }
    const double end = begin + duration(action.kind);
    if (action.kind == forward) {
      forward_done_[cell(rank, action)] = true;
      if (!last_stage(rank, action)) activations_[next_rank(rank)].push_back({action, end});
    } else if (action.kind != weight) {
      backward_done_[cell(rank, action)] = true;
      // Messages leave when the whole action is over: a full backward's gradient after its W.
      if (!first_stage(rank, action)) gradients_[previous_rank(rank)].push_back({action, end});
    }
    return {action, begin, end};
  }

  double duration(ActionKind kind) const {
    switch (kind) {
      case forward:
        return times_.forward;
      case backward:
        return times_.backward;
      case backward_full:
        return times_.backward + times_.weight;
      case weight:
        return times_.weight;
    }
    return 0;
  }

  const Schedule& schedule_;
  const ActionTimes times_;
  const int ranks_;
  // Indexed by the receiver.
  std::vector<std::deque<Message>> activations_;
  std::vector<std::deque<Message>> gradients_;
  std::vector<bool> forward_done_;
  std::vector<bool> backward_done_;
};

void check_shape(const Schedule& schedule) {
  if (schedule.stages < 1 || schedule.chunks < 1 || schedule.micro_batches < 1)
    throw broken(schedule, "every count must be at least 1");
  if (schedule.ranks.size() != static_cast<std::size_t>(schedule.stages))
    throw broken(schedule, fmt::format("orders for {} ranks", schedule.ranks.size()));
  for (int rank = 0; rank < schedule.stages; ++rank) {
    for (const Action& action : schedule.ranks[rank]) {
      const bool known = action.kind <= weight && action.chunk >= 0 && action.chunk < schedule.chunks &&
                         action.micro_batch >= 0 && action.micro_batch < schedule.micro_batches;
      if (!known) throw broken(schedule, fmt::format("rank {} has no {}", rank, action.str()));
    }
  }
}

// Every F, B and W of a rank exactly once; a full backward is a B and a W.
void check_complete(const Schedule& schedule, int rank) {
  const int micro_batches = schedule.micro_batches;
  struct Count {
    int forward = 0, backward = 0, weight = 0;
  };
  std::vector<Count> counts(static_cast<std::size_t>(schedule.chunks) * micro_batches);
  for (const Action& action : schedule.ranks[rank]) {
    Count& count = counts[static_cast<std::size_t>(action.chunk) * micro_batches + action.micro_batch];
    if (action.kind == forward) ++count.forward;
    if (action.kind == backward || action.kind == backward_full) ++count.backward;
    if (action.kind == weight || action.kind == backward_full) ++count.weight;
    if (count.forward > 1 || count.backward > 1 || count.weight > 1)
      throw broken(schedule, fmt::format("rank {} runs {} a second time", rank, action.str()));
  }
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const int chunk = static_cast<int>(i) / micro_batches, micro_batch = static_cast<int>(i) % micro_batches;
    const Count& count = counts[i];
    for (const auto& [kind, times] :
         {std::pair{forward, count.forward}, std::pair{backward, count.backward}, std::pair{weight, count.weight}}) {
      if (times == 0)
        throw broken(schedule, fmt::format("rank {} never runs {}", rank, Action{kind, chunk, micro_batch}.str()));
    }
  }
}

}  // namespace

void validate(const Schedule& schedule) {
  check_shape(schedule);
  for (int rank = 0; rank < schedule.stages; ++rank) check_complete(schedule, rank);
  Runner(schedule, {}).run();
}

Timeline simulate(const Schedule& schedule, const ActionTimes& times) {
  check_shape(schedule);
  return Runner(schedule, times).run();
}

double Timeline::bubble() const {
  double busy = 0;
  for (const std::vector<Span>& spans : ranks) {
    for (const Span& span : spans) busy += span.end - span.begin;
  }
  const double whole = end * static_cast<double>(ranks.size());
  return whole > 0 ? 1 - busy / whole : 0;
}

}  // namespace sluice
