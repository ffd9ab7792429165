// Generation: a model continues a prompt, token by token, on one rank. The prompt is run once, in pieces, whatever the
// number of samples; each sample continues it on its own.
#pragma once

#include <functional>
#include <vector>

#include "generation/token_sampler.h"
#include "launch/launcher.h"
#include "parallel/decoder.h"
#include "trainer/pretrained.h"

namespace sluice {

struct GenerationJob {
  std::vector<int32_t> prompt;  // at least one token
  int64_t max_tokens = 0;       // of a sample
  int64_t samples = 1;
  int64_t vocab = 0;                        // tokens from this one on are never drawn
  std::vector<std::vector<int32_t>> stops;  // a sample ends before the first of these; none is empty
  SamplingOptions sampling;
  const Pretrained* weights = nullptr;  // null: drawn at random
  bool every_logit = false;             // GenerationEvents::logits is called
};

// Called as things happen. All but `tokens` may be null.
struct GenerationEvents {
  std::function<void(int64_t sample)> begins = {};
  // The next tokens of a sample, those that may be the beginning of a stop once it is known that they are not.
  std::function<void(std::span<const int32_t> tokens)> tokens;
  std::function<void(int64_t sample)> ended = {};
  // Logits of what follows `token`, for every token that was run, from the prompt's first on.
  std::function<void(int32_t token, std::span<const double> logits)> logits = {};
};

struct GenerationResult {
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0;
  int64_t tokens = 0;   // of all samples, stops included
  int64_t decoded = 0;  // of these those that were run for what follows them
  double decode_seconds = 0;
};

// Tokens on their way out, held back as long as they may be the beginning of a stop.
class StopFilter {
 public:
  explicit StopFilter(std::span<const std::vector<int32_t>> stops) : stops_(stops) {}

  // Takes the next token and returns what can go out; with `ended()` a stop is complete and nothing follows.
  std::vector<int32_t> next(int32_t token);
  // What is still held, when nothing follows.
  std::vector<int32_t> rest();
  bool ended() const { return ended_; }

 private:
  std::span<const std::vector<int32_t>> stops_;
  std::vector<int32_t> held_;
  bool ended_ = false;
};

// What a job needs at most, found by running it on meta.
struct GenerationPlan {
  ArenaSizes sizes;
  size_t bytes = 0;
};
// In this and the next, `spec` is of one rank and has no forced gate and no layer that predicts further tokens.
GenerationPlan plan_generation(const RunSpec& spec, const GenerationJob& job, const Target& target);

GenerationResult run_generation(const RunSpec& spec, const LaunchOptions& options, const GenerationJob& job,
                                const GenerationEvents& events);

}  // namespace sluice
