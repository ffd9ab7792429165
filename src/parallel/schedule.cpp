#include "parallel/schedule.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace sluice {
namespace {

using enum ActionKind;

Schedule empty_schedule(std::string name, int stages, int chunks, int micro_batches) {
  if (stages < 1 || chunks < 1) {
    throw user_error("pipeline schedule {} over {} stages of {} chunks", name, stages, chunks)
        .advise("both must be at least 1");
  }
  if (micro_batches < 1) {
    throw user_error("pipeline schedule {} with {} micro-batches", name, micro_batches)
        .advise("raise the global batch size or lower the micro-batch size so that there is at least 1");
  }
  return {std::move(name), stages, chunks, micro_batches, std::vector<std::vector<Action>>(stages)};
}

// Peak over one rank's order of the sum of `change` over the actions of one chunk.
template <class Change>
int peak(const std::vector<Action>& order, int chunk, Change change) {
  int now = 0, most = 0;
  for (const Action& action : order) {
    if (action.chunk == chunk) most = std::max(most, now += change(action.kind));
  }
  return most;
}

bool ends_forward(ActionKind kind) {
  return kind == backward || kind == backward_full;
}
bool ends_weight(ActionKind kind) {
  return kind == weight || kind == backward_full;
}

// The (chunk, micro-batch) visited by forwards in order; backwards visit the chunks of each group in reverse.
struct Visit {
  int chunk;
  int micro_batch;
};
std::vector<Visit> visits(int chunks, int micro_batches, int groups, bool reversed) {
  std::vector<Visit> order;
  order.reserve(static_cast<std::size_t>(chunks) * micro_batches);
  for (int group = 0, first = 0; group < groups; ++group) {
    const int size = micro_batches / groups + (group < micro_batches % groups ? 1 : 0);
    for (int c = 0; c < chunks; ++c) {
      for (int i = 0; i < size; ++i) order.push_back({reversed ? chunks - 1 - c : c, first + i});
    }
    first += size;
  }
  return order;
}

// `warm_up` forwards, then one forward and one full backward in turn, then the backwards that are left.
std::vector<Action> one_forward_one_backward(const std::vector<Visit>& forwards, const std::vector<Visit>& backwards,
                                             std::size_t warm_up) {
  std::vector<Action> order;
  order.reserve(2 * forwards.size());
  for (std::size_t i = 0; i < forwards.size() + warm_up; ++i) {
    if (i < forwards.size()) order.push_back({forward, forwards[i].chunk, forwards[i].micro_batch});
    if (i < warm_up) continue;
    const Visit& visit = backwards[i - warm_up];
    order.push_back({backward_full, visit.chunk, visit.micro_batch});
  }
  return order;
}

}  // namespace

std::string_view letters_of(ActionKind kind) {
  constexpr std::array names{"F", "B", "BW", "W"};
  return names.at(static_cast<std::size_t>(kind));
}

std::string Action::str() const {
  return fmt::format("{}{}.{}", letters_of(kind), chunk, micro_batch);
}

int Schedule::max_in_flight(int rank, int chunk) const {
  return peak(ranks.at(rank), chunk, [](ActionKind kind) { return kind == forward ? 1 : ends_forward(kind) ? -1 : 0; });
}

int Schedule::max_held(int rank, int chunk) const {
  return peak(ranks.at(rank), chunk, [](ActionKind kind) { return kind == forward ? 1 : ends_weight(kind) ? -1 : 0; });
}

Schedule schedule_1f1b(int stages, int micro_batches) {
  Schedule schedule = empty_schedule("1f1b", stages, 1, micro_batches);
  const std::vector<Visit> order = visits(1, micro_batches, 1, false);
  for (int rank = 0; rank < stages; ++rank) {
    const int warm_up = std::min(stages - 1 - rank, micro_batches);
    schedule.ranks[rank] = one_forward_one_backward(order, order, warm_up);
  }
  return schedule;
}

Schedule schedule_interleaved_1f1b(int stages, int chunks, int micro_batches) {
  Schedule schedule = empty_schedule("interleaved1f1b", stages, chunks, micro_batches);
  if (chunks == 1 && stages > 1) {
    throw user_error("pipeline schedule interleaved1f1b needs at least 2 chunks on each of its {} stages, not 1",
                     stages)
        .advise("choose schedule 1f1b, or fewer layers per stage so that each rank holds several stages");
  }
  if (stages == 1) {
    // Alone, a rank need not start the next micro-batch before the last one has ended.
    for (int m = 0; m < micro_batches; ++m) {
      for (int c = 0; c < chunks; ++c) schedule.ranks[0].push_back({forward, c, m});
      for (int c = chunks - 1; c >= 0; --c) schedule.ranks[0].push_back({backward_full, c, m});
    }
    return schedule;
  }
  const int groups = std::max(1, micro_batches / stages);
  const int largest = (micro_batches + groups - 1) / groups;
  const std::vector<Visit> forwards = visits(chunks, micro_batches, groups, false);
  const std::vector<Visit> backwards = visits(chunks, micro_batches, groups, true);
  for (int rank = 0; rank < stages; ++rank) {
    // The first backward is that of the last chunk, so all other chunks' forwards of a group come before it; two more
    // forwards for each rank below cover the way there and back.
    const int wanted = 2 * (stages - 1 - rank) + (chunks - 1) * largest;
    const int warm_up = std::min(wanted, chunks * micro_batches);
    schedule.ranks[rank] = one_forward_one_backward(forwards, backwards, warm_up);
  }
  return schedule;
}

Schedule schedule_zb_h1(int stages, int micro_batches) {
  Schedule schedule = empty_schedule("zb-h1", stages, 1, micro_batches);
  for (int rank = 0; rank < stages; ++rank) {
    // Rank r has r forwards fewer in flight than rank 0 and holds back r weight gradients in their place: every rank
    // keeps what rank 0 keeps under 1F1B, and those weight gradients fill the bubble at the end.
    const int warm_up = std::min(stages - 1 - rank, micro_batches);
    std::vector<Action>& order = schedule.ranks[rank];
    for (int i = 0; i < micro_batches + warm_up; ++i) {
      if (i < micro_batches) order.push_back({forward, 0, i});
      if (i < warm_up) continue;
      const int b = i - warm_up;
      order.push_back({backward, 0, b});
      if (b >= rank) order.push_back({weight, 0, b - rank});
    }
    for (int w = std::max(0, micro_batches - rank); w < micro_batches; ++w) order.push_back({weight, 0, w});
  }
  return schedule;
}

Schedule make_schedule(ScheduleKind kind, int stages, int chunks, int micro_batches) {
  if (kind == ScheduleKind::interleaved) return schedule_interleaved_1f1b(stages, chunks, micro_batches);
  const bool zero_bubble = kind == ScheduleKind::zero_bubble;
  if (chunks != 1) {
    throw user_error("pipeline schedule {} takes 1 chunk per rank, not {}", zero_bubble ? "zb-h1" : "1f1b", chunks)
        .advise("choose schedule interleaved1f1b, or 1 virtual stage per rank");
  }
  return zero_bubble ? schedule_zb_h1(stages, micro_batches) : schedule_1f1b(stages, micro_batches);
}

}  // namespace sluice
