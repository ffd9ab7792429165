// Random sequences of collectives on random groups against a model that does them one after the other.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>

#include "comm/inproc/inproc.h"
#include "comm/processes/run_processes.h"

namespace sluice {
namespace {

constexpr int kGroups = 3;  // axes each world is split into

// One collective of the script: the same on all ranks but for what routing-like counts say.
struct Step {
  Collective kind;
  int axis;
  int64_t n;
  int root_seed;
  uint32_t counts_seed;
};

struct Script {
  int ranks = 1;
  std::vector<std::vector<int>> colors;  // [axis][rank]
  std::vector<Step> steps;

  std::vector<int> group(int axis, int rank) const {
    std::vector<int> members;
    const auto& c = colors[static_cast<size_t>(axis)];
    for (int r = 0; r < ranks; ++r) {
      if (c[static_cast<size_t>(r)] == c[static_cast<size_t>(rank)]) members.push_back(r);
    }
    return members;
  }
};

Script make_script(uint32_t seed) {
  std::mt19937 random(seed);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  Script script;
  script.ranks = 1 + below(8);
  for (int axis = 0; axis < kGroups; ++axis) {
    std::vector<int> colors;
    for (int r = 0; r < script.ranks; ++r) colors.push_back(axis == 0 ? 0 : below(3));
    script.colors.push_back(colors);
  }
  const Collective kinds[] = {Collective::all_gather,   Collective::reduce_scatter, Collective::all_reduce,
                              Collective::all_to_all_v, Collective::broadcast,      Collective::send};
  for (int i = 0; i < 25; ++i) {
    script.steps.push_back({kinds[below(6)], below(kGroups), below(40), below(100), static_cast<uint32_t>(random())});
  }
  return script;
}

// Rows that member `from` sends to member `to`: many empty, unequal.
int64_t rows(const Step& step, int from, int to) {
  const uint32_t h = (step.counts_seed ^ static_cast<uint32_t>(from * 7919 + to * 104729)) * 2654435761U;
  return (h >> 28) < 5 ? 0 : (h >> 20) % 6;
}

using State = std::vector<double>;  // a rank's data: every step reads its head and folds its result into it
constexpr int64_t kState = 64;

State initial(int rank) {
  State state(kState);
  for (int64_t i = 0; i < kState; ++i)
    state[static_cast<size_t>(i)] = 1.0 / (1.0 + static_cast<double>(rank * kState + i));
  return state;
}

// What a step on `n` elements puts in: as long as asked for, made of the state.
std::vector<double> input(const State& state, int64_t n) {
  std::vector<double> in(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i)
    in[static_cast<size_t>(i)] = state[static_cast<size_t>(i % kState)] * static_cast<double>(i + 1);
  return in;
}

void fold(State& state, const std::vector<double>& result) {
  for (size_t i = 0; i < result.size(); ++i) state[i % kState] = 0.5 * state[i % kState] + 0.25 * result[i];
}

int64_t sent_rows(const Step& step, int member, int size) {
  int64_t sum = 0;
  for (int r = 0; r < size; ++r) sum += rows(step, member, r);
  return sum;
}

constexpr int64_t kWidth = 3;

int64_t input_size(const Step& step, int member, int size) {
  if (step.kind == Collective::reduce_scatter) return step.n * size;
  if (step.kind == Collective::all_to_all_v) return sent_rows(step, member, size) * kWidth;
  return step.n;
}

// The result of `step` for each member of a group, from all their inputs.
std::vector<std::vector<double>> model(const Step& step, const std::vector<std::vector<double>>& in) {
  const int size = static_cast<int>(in.size());
  std::vector<std::vector<double>> out(in.size());
  for (int m = 0; m < size; ++m) {
    std::vector<double>& mine = out[static_cast<size_t>(m)];
    switch (step.kind) {
      case Collective::all_gather:
        for (const auto& v : in) mine.insert(mine.end(), v.begin(), v.end());
        break;
      case Collective::reduce_scatter:
      case Collective::all_reduce: {
        const int64_t first = step.kind == Collective::all_reduce ? 0 : m * step.n;
        for (int64_t i = first; i < first + step.n; ++i) {
          double sum = in[0][static_cast<size_t>(i)];
          for (size_t r = 1; r < in.size(); ++r) sum += in[r][static_cast<size_t>(i)];
          mine.push_back(sum);
        }
        break;
      }
      case Collective::all_to_all_v:
        for (int r = 0; r < size; ++r) {
          int64_t first = 0;
          for (int q = 0; q < m; ++q) first += rows(step, r, q) * kWidth;
          const auto begin = in[static_cast<size_t>(r)].begin() + first;
          mine.insert(mine.end(), begin, begin + rows(step, r, m) * kWidth);
        }
        break;
      case Collective::broadcast:
        mine = in[static_cast<size_t>(step.root_seed % size)];
        break;
      default:  // a ring of messages
        mine = in[static_cast<size_t>((m + size - 1) % size)];
        break;
    }
  }
  return out;
}

std::vector<State> run_model(const Script& script) {
  std::vector<State> states;
  for (int r = 0; r < script.ranks; ++r) states.push_back(initial(r));
  for (const Step& step : script.steps) {
    std::vector<State> next = states;
    for (int r = 0; r < script.ranks; ++r) {
      const std::vector<int> members = script.group(step.axis, r);
      const int size = static_cast<int>(members.size());
      if (members[0] != r) continue;
      std::vector<std::vector<double>> in;
      for (int m = 0; m < size; ++m) {
        in.push_back(input(states[static_cast<size_t>(members[static_cast<size_t>(m)])], input_size(step, m, size)));
      }
      const auto out = model(step, in);
      for (int m = 0; m < size; ++m) {
        fold(next[static_cast<size_t>(members[static_cast<size_t>(m)])], out[static_cast<size_t>(m)]);
      }
    }
    states = next;
  }
  return states;
}

std::vector<double> do_step(Communicator& group, Stream& stream, const Step& step, std::vector<double>& in) {
  const int size = group.size();
  const int self = group.rank();
  const Tensor in_tensor = tensor_of(in.data(), {std::ssize(in)});
  std::vector<double> out;
  const auto out_of = [&](int64_t n) {
    out.assign(static_cast<size_t>(n), -1.0);
    return tensor_of(out.data(), {n});
  };
  switch (step.kind) {
    case Collective::all_gather:
      group.all_gather(stream, out_of(step.n * size), in_tensor, "step").wait(stream);
      return out;
    case Collective::reduce_scatter:
      group.reduce_scatter(stream, out_of(step.n), in_tensor, "step").wait(stream);
      return out;
    case Collective::all_reduce:
      group.all_reduce(stream, in_tensor, ReduceOp::sum, "step").wait(stream);
      return in;
    case Collective::all_to_all_v: {
      std::vector<int64_t> in_counts;
      std::vector<int64_t> out_counts;
      for (int r = 0; r < size; ++r) {
        in_counts.push_back(rows(step, self, r));
        out_counts.push_back(rows(step, r, self));
      }
      const int64_t received = std::accumulate(out_counts.begin(), out_counts.end(), int64_t{0});
      const Tensor out_tensor = out_of(received * kWidth).view({received, kWidth});
      group
          .all_to_all_v(stream, out_tensor, out_counts, in_tensor.view({std::ssize(in) / kWidth, kWidth}), in_counts,
                        "step")
          .wait(stream);
      return out;
    }
    case Collective::broadcast:
      group.broadcast(stream, in_tensor, step.root_seed % size, "step").wait(stream);
      return in;
    default: {
      if (size == 1) return in;
      Work sent = group.send(stream, in_tensor, (self + 1) % size, step.root_seed, "step");
      Work received = group.recv(stream, out_of(step.n), (self + size - 1) % size, step.root_seed, "step");
      sent.wait(stream);
      received.wait(stream);
      return out;
    }
  }
}

using Body = std::function<void(Communicator& world)>;

// As threads of one process, as two processes, and as a process each; nothing where there are too few ranks for that.
std::vector<std::pair<std::string, std::function<void(const Body&)>>> ways_to_run(int ranks, uint32_t seed) {
  std::vector<std::pair<std::string, std::function<void(const Body&)>>> ways;
  for (const bool async : {false, true}) {
    const std::string suffix = async ? " async" : " inline";
    ways.emplace_back("threads" + suffix,
                      [=](const Body& body) { run_ranks(ranks, {.timeout_s = 60, .async = async}, body); });
    if (ranks < 2) continue;
    const int first = 1 + static_cast<int>(seed) % (ranks - 1);
    ways.emplace_back("two processes" + suffix, [=](const Body& body) {
      test::expect_processes({.ranks = {first, ranks - first}, .async = async}, body);
    });
    ways.emplace_back("processes" + suffix, [=](const Body& body) {
      test::expect_processes({.ranks = std::vector<int>(static_cast<size_t>(ranks), 1), .async = async}, body);
    });
  }
  return ways;
}

TEST(RandomSequences, EqualTheSerialModelBitForBit) {
  int multi_rank = 0;
  for (uint32_t seed = 0; seed < 24; ++seed) {
    const Script script = make_script(seed);
    const std::vector<State> expected = run_model(script);
    multi_rank += script.ranks > 1;
    for (const auto& [way, run] : ways_to_run(script.ranks, seed)) {
      std::vector<State> states(static_cast<size_t>(script.ranks));
      run([&](Communicator& world) {
        Stream stream;
        std::vector<std::unique_ptr<Communicator>> groups;
        for (const auto& colors : script.colors) {
          groups.push_back(world.split("axis", [&](int rank) { return colors[static_cast<size_t>(rank)]; }));
        }
        State state = initial(world.rank());
        for (const Step& step : script.steps) {
          Communicator& group = *groups[static_cast<size_t>(step.axis)];
          std::vector<double> in = input(state, input_size(step, group.rank(), group.size()));
          fold(state, do_step(group, stream, step, in));
        }
        states[static_cast<size_t>(world.rank())] = state;
      });
      EXPECT_EQ(states, expected) << "seed " << seed << ", " << way;
    }
  }
  EXPECT_GT(multi_rank, 12);
}

}  // namespace
}  // namespace sluice
