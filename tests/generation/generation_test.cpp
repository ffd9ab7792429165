#include "generation/generation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <set>

#include "device/cpu/cpu_backend.h"
#include "support/training.h"

namespace sluice::test {
namespace {

RunSpec spec_of(const std::string& family, const std::string& dtype = "f64") {
  // Weights large enough that text depends on what came before.
  RunSpec spec = resolve(tiny_config({"--runtime.dtype=" + dtype, "--model.config.initializer_range=0.3"}, family), 1);
  spec.optimize = false;
  return spec;
}

GenerationJob job_of(std::vector<int32_t> prompt, int64_t tokens) {
  return {.prompt = std::move(prompt), .max_tokens = tokens, .vocab = 64};
}

struct Output {
  std::vector<std::vector<int32_t>> samples;
  std::vector<int32_t> run;                 // tokens that were run
  std::vector<std::vector<double>> logits;  // of what follows each
  GenerationResult result;
};

Output generate(const RunSpec& spec, const GenerationJob& job, const LaunchOptions& options) {
  Output out;
  const GenerationEvents events{.begins = [&](int64_t) { out.samples.emplace_back(); },
                                .tokens =
                                    [&](std::span<const int32_t> tokens) {
                                      out.samples.back().insert(out.samples.back().end(), tokens.begin(), tokens.end());
                                    },
                                .logits =
                                    [&](int32_t token, std::span<const double> row) {
                                      out.run.push_back(token);
                                      out.logits.emplace_back(row.begin(), row.end());
                                    }};
  out.result = run_generation(spec, options, job, events);
  return out;
}

const LaunchOptions kPlain{.device = DeviceKind::ref};

class Families : public testing::TestWithParam<std::string> {};

// Greedy text is the most probable token of the whole text's forward at each place, GPT-OSS's far behind its window.
TEST_P(Families, GreedyTextIsThatOfWholeForwards) {
  const RunSpec spec = spec_of(GetParam());
  GenerationJob job = job_of({5, 60, 1}, 30);
  job.every_logit = true;
  const Output out = generate(spec, job, kPlain);
  ASSERT_EQ(out.samples.size(), 1U);
  const std::vector<int32_t>& text = out.samples.front();
  ASSERT_EQ(text.size(), 30U);
  EXPECT_GT(std::set<int32_t>(text.begin(), text.end()).size(), 3U) << "a text that could be any model's";
  EXPECT_EQ(out.result.prompt_tokens, 3);
  EXPECT_EQ(out.result.tokens, 30);
  EXPECT_EQ(out.result.decoded, 29);

  // All of it as one prompt.
  GenerationJob whole = job_of(job.prompt, 0);
  whole.prompt.insert(whole.prompt.end(), text.begin(), text.end());
  whole.every_logit = true;
  const Output at_once = generate(spec, whole, kPlain);
  ASSERT_EQ(at_once.logits.size(), 33U);
  ASSERT_EQ(out.logits.size(), 32U);
  double error = 0, largest = 0;
  for (size_t i = 0; i < out.logits.size(); ++i) {
    EXPECT_EQ(out.run[i], at_once.run[i]);
    for (size_t v = 0; v < out.logits[i].size(); ++v) {
      error = std::max(error, std::abs(out.logits[i][v] - at_once.logits[i][v]));
      largest = std::max(largest, std::abs(at_once.logits[i][v]));
    }
    const auto most = std::ranges::max_element(at_once.logits[i]) - at_once.logits[i].begin();
    if (i >= 2) {
      EXPECT_EQ(text[i - 2], most);
    }
  }
  EXPECT_GT(largest, 0);
  EXPECT_LE(error, 1e-12 * largest);
}
INSTANTIATE_TEST_SUITE_P(Models, Families, testing::ValuesIn(tiny_families()),
                         [](const auto& instance) { return instance.param; });

TEST(Generation, OneSeedIsOneTextWhateverTheThreadsAndTheOtherSamples) {
  const RunSpec spec = spec_of("qwen3_moe", "f32");
  GenerationJob job = job_of({1, 2, 3, 4}, 20);
  job.sampling = {.temperature = 1, .seed = 9};
  const Output alone = generate(spec, job, {.device = DeviceKind::cpu, .threads = 1});
  job.samples = 3;
  const Output three = generate(spec, job, {.device = DeviceKind::cpu, .threads = 2});
  ASSERT_EQ(three.samples.size(), 3U);
  EXPECT_EQ(three.samples[0], alone.samples[0]);
  EXPECT_NE(three.samples[1], three.samples[0]);
  EXPECT_NE(three.samples[2], three.samples[1]);
  EXPECT_EQ(three.result.tokens, 60);
  job.sampling.seed = 10;
  EXPECT_NE(generate(spec, job, {.device = DeviceKind::cpu, .threads = 2}).samples[0], alone.samples[0]);
}

TEST(Generation, LongPromptsGoThroughInPieces) {
  RunSpec spec = spec_of("gpt_oss", "f32");
  GenerationJob job = job_of({}, 2);
  for (int32_t i = 0; i < 1100; ++i) job.prompt.push_back(i * 7 % 64);
  job.every_logit = true;
  const Output out = generate(spec, job, {.device = DeviceKind::cpu, .threads = 2});
  EXPECT_EQ(out.run.size(), 1101U);
  EXPECT_TRUE(std::equal(job.prompt.begin(), job.prompt.end(), out.run.begin()));
}

TEST(Generation, StopsAndTokensThatAreNotDrawn) {
  const RunSpec spec = spec_of("qwen3_moe");
  const GenerationJob job = job_of({5, 60, 1}, 30);
  const std::vector<int32_t> text = generate(spec, job, kPlain).samples.front();
  GenerationJob stopped = job;
  stopped.stops = {{99}, {text[4], text[5]}};
  const Output out = generate(spec, stopped, kPlain);
  const auto at = std::ranges::search(text, stopped.stops[1]).begin();
  EXPECT_EQ(out.samples.front(), std::vector<int32_t>(text.begin(), at));
  EXPECT_EQ(out.result.tokens, at - text.begin() + 2);
  GenerationJob few = job;
  few.vocab = 3;
  const std::vector<int32_t> low = generate(spec, few, kPlain).samples.front();
  EXPECT_EQ(low.size(), 30U);
  for (const int32_t token : low) EXPECT_LT(token, 3);
}

TEST(StopFilter, HoldsBackWhatMayBeginAStop) {
  using Tokens = std::vector<int32_t>;
  const std::vector<Tokens> stops{{1, 2, 1, 3}, {7}};
  StopFilter filter(stops);
  EXPECT_EQ(filter.next(5), Tokens({5}));
  EXPECT_EQ(filter.next(1), Tokens());
  EXPECT_EQ(filter.next(2), Tokens());
  EXPECT_EQ(filter.next(1), Tokens());
  EXPECT_EQ(filter.next(2), Tokens({1, 2}));  // 1 2 may still go on
  EXPECT_EQ(filter.next(1), Tokens());
  EXPECT_FALSE(filter.ended());
  EXPECT_EQ(filter.rest(), Tokens({1, 2, 1}));
  EXPECT_EQ(filter.next(1), Tokens());
  EXPECT_EQ(filter.next(2), Tokens());
  EXPECT_EQ(filter.next(1), Tokens());
  EXPECT_EQ(filter.next(3), Tokens());
  EXPECT_TRUE(filter.ended());
  EXPECT_EQ(filter.rest(), Tokens());
  StopFilter other(stops);
  EXPECT_EQ(other.next(1), Tokens());
  EXPECT_EQ(other.next(7), Tokens({1}));
  EXPECT_TRUE(other.ended());
  StopFilter none({});
  EXPECT_EQ(none.next(1), Tokens({1}));
}

// The host's memory, whose account outlives it.
class WatchedMemory final : public Memory {
 public:
  explicit WatchedMemory(size_t& peak) : peak_(peak) {}
  ~WatchedMemory() override { peak_ = ledger().peak(); }
  bool real() const override { return true; }

 private:
  void* take(size_t bytes) override { return ::operator new(bytes, std::align_val_t{Arena::kAlignment}); }
  void give_back(void* data, size_t /*bytes*/) override {
    ::operator delete(data, std::align_val_t{Arena::kAlignment});
  }
  size_t& peak_;
};

TEST(GenerationPlan, IsWhatARunTakes) {
  for (const std::string& family : tiny_families()) {
    for (const int64_t prompt : {1, 40, 700}) {
      const RunSpec spec = spec_of(family, "f32");
      GenerationJob job = job_of(std::vector<int32_t>(static_cast<size_t>(prompt), 3), 70);
      size_t peak = 0;
      Pool pool(2);
      LaunchOptions options;
      options.hardware = {.backend = [&](int) { return std::make_unique<CpuBackend>(pool); },
                          .memory = [&](int) { return std::make_unique<WatchedMemory>(peak); }};
      generate(spec, job, options);
      EXPECT_EQ(peak, plan_generation(spec, job, {.row_align = 1, .workers = 2}).bytes) << family << " " << prompt;
    }
  }
}

}  // namespace
}  // namespace sluice::test
