// bf16 on the CPU, on every parallel axis, held to one rank.
//
// A layout may change two things. The order of sums, in fp32: of gradients over micro-batches and ranks, of the norm.
// And with expert parallelism where a sum is cut: what a destination rank's experts give a token is rounded to bf16
// once more before it travels. All else is a function of the token, rounded where one rank rounds it.
#include <gtest/gtest.h>

#include <cmath>

#include "support/tolerance.h"
#include "support/training.h"

namespace sluice::test {
namespace {

constexpr int kSteps = 5;
// Of the tiny models.
constexpr int kLayers = 4, kTopK = 2, kTokens = 128;

struct Case {
  Layout layout;
  bool cut_sums = false;  // of experts, by expert parallelism
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.layout; }
};

std::vector<Case> cases() {
  const std::string pp2 = "--distributed.pp_size=2", ep2 = "--distributed.ep_size=2";
  const std::string local = "--step_scheduler.local_batch_size=", schedule = "--distributed.pipeline.pp_schedule=";
  const std::vector<Case> layouts = {
      {{"fsdp4_reshard", 4, {"--distributed.moe.reshard_after_forward=true"}}},
      {{"hsdp2x2", 4, {"--distributed.dp_replicate_size=2"}}},
      {{"pp2_vp2", 2, {pp2, local + "8", schedule + "interleaved1f1b", "--distributed.pipeline.virtual_stages=2"}}},
      {{"zb_h1_pp2_recomputed", 2, {pp2, local + "8", schedule + "zb_h1", "--memory.recompute=selective"}}},
      {{"ep2", 2, {ep2}}, true},
      {{"ep4_shard2_reshard", 8, {"--distributed.ep_size=4", "--distributed.moe.reshard_after_forward=true"}}, true},
      {{"zb_h1_pp2_ep2", 4, {pp2, ep2, local + "4", schedule + "zb_h1"}}, true}};
  std::vector<Case> all;
  for (const std::string family : {"qwen3_moe", "deepseek_v3", "gpt_oss"}) {
    for (Case c : layouts) {
      c.layout.name = family + "_" + c.layout.name;
      c.layout.family = family;
      all.push_back(c);
    }
  }
  return all;
}

Training train_as(Layout layout, const char* dtype, const std::vector<std::string>& overrides, int steps,
                  int threads = 1) {
  layout.overrides.push_back(std::string("--runtime.dtype=") + dtype);
  // A forced gate: choices of a router that two roundings make differently are no rounding errors.
  layout.overrides.emplace_back("--benchmark.balance=published");
  layout.overrides.insert(layout.overrides.end(), overrides.begin(), overrides.end());
  const bool exact = std::string(dtype) == "f64";
  return train(layout, {.device = exact ? DeviceKind::ref : DeviceKind::cpu, .threads = threads, .steps = steps});
}

const Training& one_rank(const std::string& family, const char* dtype, int steps) {
  static std::map<std::string, Training> known;
  const std::string name = fmt::format("{} {} {}", family, dtype, steps);
  const auto found = known.find(name);
  if (found != known.end()) return found->second;
  return known[name] = train_as({"one", 1, {}, family}, dtype, {}, steps);
}

// Over all weights, of how far they are from where they were: norm of the difference over norm of the way.
double distance(const Training& got, const Training& expected, const Training& start) {
  double difference = 0, way = 0;
  for (const auto& [name, values] : expected.weights) {
    const std::vector<double>&mine = got.weights.at(name), &before = start.weights.at(name);
    for (size_t i = 0; i < values.size(); ++i) {
      difference += (mine[i] - values[i]) * (mine[i] - values[i]);
      way += (values[i] - before[i]) * (values[i] - before[i]);
    }
  }
  return std::sqrt(difference / way);
}

// Elements that differ, and the largest difference in steps of bf16.
struct Moved {
  int64_t elements = 0, all = 0;
  double worst = 0;
};

Moved moved(const Training& one, const Training& other) {
  Moved result;
  for (const auto& [name, values] : one.weights) {
    const std::vector<double>& mine = other.weights.at(name);
    for (size_t i = 0; i < values.size(); ++i) {
      ++result.all;
      if (mine[i] == values[i]) continue;
      ++result.elements;
      const double step = std::ldexp(1, std::ilogb(std::max(std::abs(values[i]), std::abs(mine[i]))) - 7);
      result.worst = std::max(result.worst, std::abs(mine[i] - values[i]) / step);
    }
  }
  return result;
}

class Bf16Layouts : public testing::TestWithParam<Case> {};

// The first step, whose weights are the same bits.
TEST_P(Bf16Layouts, FirstStepIsThatOfOneRank) {
  const Layout& layout = GetParam().layout;
  const Training& one = one_rank(layout.family, "bf16", 1);
  const Training many = train_as(layout, "bf16", {}, 1);
  EXPECT_EQ(one.loads, many.loads);
  const double difference = std::abs(many.losses[0] - one.losses[0]) / one.losses[0];
  if (!GetParam().cut_sums) {
    // Tokens have the same losses, which are added up in f64.
    EXPECT_LE(difference, kTokens * unit_roundoff(DType::f64));
    // A gradient's sum over tokens has a relative error of about u sqrt(T), u the roundoff of fp32, which moves a
    // master by lr times that at most. Its bf16 is another one, the next, if a tie lies between: for one in so many
    // weights as that move has room in a step of bf16, 2^-7 of a weight of the size of lr or more.
    const double ties = unit_roundoff(DType::f32) * std::sqrt(kTokens) / std::ldexp(1, -7);
    const Moved weights = moved(one, many);
    const double expected = ties * static_cast<double>(weights.all);
    EXPECT_LE(static_cast<double>(weights.elements), expected + 5 * std::sqrt(expected));
    EXPECT_LE(weights.worst, 1);
    return;
  }
  // Each layer's experts are rounded up to K times more, by u of bf16; independent errors of a layer's output are as
  // large in a token's logits, of deviation 1 or less, and of its loss at most that. The loss is the mean over T
  // tokens.
  const double deviation = unit_roundoff(DType::bf16) * std::sqrt(kLayers * kTopK);
  EXPECT_LE(difference * one.losses[0], mean_tolerance(deviation, kTokens));
}

// Later steps round other numbers; they stay as close to f64 as one rank. Each distance is a norm over all N weights:
// were their errors independent, two of the same size would differ by about 1 / sqrt(N), 1 % for the ten thousand
// weights of these models. A step's errors are shared by the weights of a row, of 32: by about sqrt(32) times that, 6
// %.
TEST_P(Bf16Layouts, StaysAsCloseToDoublePrecisionAsOneRank) {
  constexpr double kFactor = 1.1;
  const Layout& layout = GetParam().layout;
  const Training &exact = one_rank(layout.family, "f64", kSteps), &start = one_rank(layout.family, "f64", 0);
  const Training& one = one_rank(layout.family, "bf16", kSteps);
  const Training many = train_as(layout, "bf16", {}, kSteps);
  const double of_one = distance(one, exact, start), of_many = distance(many, exact, start);
  EXPECT_GT(of_one, unit_roundoff(DType::bf16)) << "no bf16";
  EXPECT_LT(of_one, 0.2);
  EXPECT_LE(of_many, kFactor * of_one);
  EXPECT_EQ(exact.loads, many.loads);
  RecordProperty("distance",
                 fmt::format("{:.4f}, of one rank {:.4f}, apart {:.4f}", of_many, of_one, distance(many, one, start)));
}

INSTANTIATE_TEST_SUITE_P(Layouts, Bf16Layouts, testing::ValuesIn(cases()),
                         [](const auto& instance) { return instance.param.layout.name; });

// Threads, and runs that are repeated, in each form of the optimizer's state.
TEST(Bf16, HasTheSameBitsWithAnyNumberOfThreads) {
  for (const char* state : {"fp32", "bf16"}) {
    SCOPED_TRACE(state);
    const Layout layout{"ep2", 2, {"--distributed.ep_size=2", std::string("--optimizer.state_dtype=") + state}};
    const std::vector<std::string> router = {"--benchmark.balance=router"};
    const Training one = train_as(layout, "bf16", router, 2, 1);
    for (const int threads : {1, 2, 3}) {
      const Training again = train_as(layout, "bf16", router, 2, threads);
      EXPECT_EQ(one.losses, again.losses) << threads;
      EXPECT_EQ(one.weights, again.weights) << threads;
    }
  }
}

}  // namespace
}  // namespace sluice::test
