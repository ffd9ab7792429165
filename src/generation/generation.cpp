#include "generation/generation.h"

#include <algorithm>

#include "base/clock.h"
#include "comm/meta/meta.h"
#include "device/meta/meta_backend.h"

namespace sluice {

namespace {

// Tokens of a prompt that are run at once: enough for fast products, few enough for little memory.
constexpr int64_t kPiece = 512;

// A model that generates; what a Trainer is without runtime, optimizer and gradients.
class Generator {
 public:
  Generator(const RunSpec& spec, const Machine& machine, int64_t capacity, const ArenaSizes* sizes)
      : ctx_(*machine.backend, spec.dtype),
        mesh_(spec.mesh, *machine.world),
        memory_(*machine.memory),
        stage_(spec.stage().without_gradients(), mesh_, memory_),
        decoder_(ctx_, stage_, capacity, memory_, sizes) {
    require(!spec.model.mtp, "a layer that predicts further tokens has no part in the next one");
    require(spec.router != RouterKind::forced || spec.model.num_experts == 0, "a forced gate knows no text");
  }

  // Drawn at random where there are none.
  void set_weights(const Pretrained* weights, uint64_t seed) {
    if (weights != nullptr) return weights->load(ctx_, mesh_.world, stage_, memory_.host_visible());
    for (FlatGroup* group : stage_.groups()) group->initialize(ctx_, seed);
  }
  Decoder& decoder() { return decoder_; }
  // The rows of logits; on meta zeros.
  std::vector<std::vector<double>> append(std::span<const int32_t> tokens, Decoder::Logits which) {
    const Tensor logits = decoder_.append(tokens, which);
    std::vector<std::vector<double>> rows;
    dispatch_float(logits.dtype(), [&]<class T>(T) {
      for (int64_t row = 0; row < logits.dim(0); ++row) {
        const auto values =
            ctx_.read<T>(logits.rows(row, 1), [&] { return std::vector<T>(static_cast<size_t>(logits.dim(1))); });
        std::vector<double>& wide = rows.emplace_back();
        for (const T x : values) wide.push_back(static_cast<double>(static_cast<accumulator_t<T>>(x)));
      }
    });
    return rows;
  }

 private:
  Context ctx_;
  Mesh mesh_;
  Memory& memory_;
  Stage stage_;
  Decoder decoder_;
};

int64_t capacity_of(const GenerationJob& job) {
  return std::ssize(job.prompt) + std::max<int64_t>(job.max_tokens, 1) - 1;
}

Decoder::Logits logits_of(const GenerationJob& job) {
  return job.every_logit ? Decoder::Logits::all : Decoder::Logits::last;
}

GenerationResult generate(Generator& generator, const GenerationJob& job, const GenerationEvents& events) {
  GenerationResult result{.prompt_tokens = std::ssize(job.prompt)};
  const auto run = [&](std::span<const int32_t> tokens) {
    const auto rows = generator.append(tokens, logits_of(job));
    for (size_t i = 0; job.every_logit && i < rows.size(); ++i) events.logits(tokens[i], rows[i]);
    return rows.back();
  };
  Stopwatch watch;
  std::vector<double> after_prompt;
  for (int64_t at = 0; at < result.prompt_tokens; at += kPiece) {
    const int64_t count = std::min(kPiece, result.prompt_tokens - at);
    after_prompt = run(std::span(job.prompt).subspan(static_cast<size_t>(at), static_cast<size_t>(count)));
  }
  result.prompt_seconds = watch.seconds();
  watch.restart();
  for (int64_t sample = 0; sample < job.samples; ++sample) {
    if (events.begins) events.begins(sample);
    generator.decoder().rewind(result.prompt_tokens);
    std::vector<double> logits = after_prompt;
    StopFilter stop(job.stops);
    for (int64_t i = 0; i < job.max_tokens && !stop.ended(); ++i) {
      const int32_t token = draw_token(std::span(logits).first(static_cast<size_t>(job.vocab)), job.sampling, sample,
                                       result.prompt_tokens + i);
      ++result.tokens;
      if (const std::vector<int32_t> out = stop.next(token); !out.empty()) events.tokens(out);
      if (i + 1 == job.max_tokens || stop.ended()) break;
      logits = run(std::span(&token, 1));
      ++result.decoded;
    }
    if (const std::vector<int32_t> out = stop.rest(); !out.empty()) events.tokens(out);
    if (events.ended) events.ended(sample);
  }
  result.decode_seconds = watch.seconds();
  return result;
}

}  // namespace

std::vector<int32_t> StopFilter::next(int32_t token) {
  held_.push_back(token);
  size_t keep = 0;
  for (const std::vector<int32_t>& stop : stops_) {
    // The longest end of what is held that a stop begins with.
    for (size_t n = std::min(stop.size(), held_.size()); n > keep; --n) {
      if (!std::equal(stop.begin(), stop.begin() + static_cast<int64_t>(n), held_.end() - static_cast<int64_t>(n))) {
        continue;
      }
      if (n == stop.size()) ended_ = true;
      keep = n;
    }
  }
  const auto end = held_.end() - static_cast<int64_t>(keep);
  std::vector<int32_t> out(held_.begin(), end);
  held_.erase(held_.begin(), end);
  if (ended_) held_.clear();
  return out;
}

std::vector<int32_t> StopFilter::rest() {
  return std::exchange(held_, {});
}

GenerationPlan plan_generation(const RunSpec& spec, const GenerationJob& job, const Target& target) {
  MetaBackend backend({.target = target});
  MetaWorld world({}, 1);
  const auto communicator = world.communicator(0);
  const auto run = [&](Memory& memory, const ArenaSizes* sizes) {
    Generator generator(spec, {&backend, &memory, communicator.get()}, capacity_of(job), sizes);
    Decoder& decoder = generator.decoder();
    // The largest call with the most keys that it may meet, and the last one.
    const std::span<const int32_t> prompt(job.prompt);
    const size_t piece = std::min(prompt.size(), static_cast<size_t>(kPiece));
    decoder.assume(std::ssize(prompt) - static_cast<int64_t>(piece));
    decoder.append(prompt.last(piece), logits_of(job));
    decoder.assume(decoder.capacity() - 1);
    decoder.append(prompt.last(1), logits_of(job));
    return decoder.arena_sizes();
  };
  // Arenas that have no size yet take more than they need.
  MetaMemory first, second;
  GenerationPlan plan{.sizes = run(first, nullptr)};
  run(second, &plan.sizes);
  plan.bytes = second.ledger().peak();
  return plan;
}

GenerationResult run_generation(const RunSpec& spec, const LaunchOptions& options, const GenerationJob& job,
                                const GenerationEvents& events) {
  require(spec.mesh.world == 1 && !job.prompt.empty() && job.vocab > 0, "{} ranks, a prompt of {}, {} tokens to draw",
          spec.mesh.world, job.prompt.size(), job.vocab);
  GenerationResult result;
  make_launcher(options, 1)->run(spec.mesh, [&](Rank& rank) {
    const GenerationPlan plan = plan_generation(spec, job, rank.backend.target());
    Generator generator(spec, {&rank.backend, &rank.memory, &rank.world}, capacity_of(job), &plan.sizes);
    generator.set_weights(job.weights, spec.seed);
    result = generate(generator, job, events);
    rank.backend.synchronize();
  });
  return result;
}

}  // namespace sluice
