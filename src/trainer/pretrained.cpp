#include "trainer/pretrained.h"

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_model.h"
#include "checkpoint/trained_state.h"
#include "checkpoint/weight_files.h"
#include "model/cards.h"

namespace sluice {

class Pretrained::Source {
 public:
  // Told on the caller's thread, but for checkpoints on any.
  using Progress = std::function<void(uint64_t done, uint64_t all)>;

  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;
  Source(Source&&) = delete;
  Source& operator=(Source&&) = delete;
  virtual ~Source() = default;

  virtual void load(Trainer& trainer, const Progress& progress) const = 0;
  virtual void load(Context& ctx, Stage& stage, bool host_visible, Pool& pool, const Progress& progress) const = 0;
  // For people.
  virtual std::string describe() const = 0;
};

namespace {

// This rank's share of the threads: all ranks load at the same time.
Pool pool_of(const Context& ctx, const Communicator& world) {
  return Pool(std::max(1, ctx.backend().target().workers / world.size()));
}

class HubSource final : public Pretrained::Source {
 public:
  HubSource(const std::filesystem::path& directory, const ModelConfig& model)
      : hub_(directory), match_(match_weights(hub_, model)) {
    check_repeats(match_);
  }

  void load(Trainer& trainer, const Progress& progress) const override { trainer.load(match_, told(progress)); }
  void load(Context& ctx, Stage& stage, bool host_visible, Pool& pool, const Progress& progress) const override {
    std::vector<GroupShard> shards;
    for (FlatGroup* group : stage.groups()) shards.push_back({.group = group});
    import_weights(ctx, match_, shards, {.pool = &pool, .host_visible = host_visible, .progress = told(progress)});
  }
  std::string describe() const override { return sluice::describe(match_, hub_); }

 private:
  static std::function<void(int64_t, int64_t)> told(const Progress& progress) {
    return
        [&progress](int64_t done, int64_t all) { progress(static_cast<uint64_t>(done), static_cast<uint64_t>(all)); };
  }

  HubWeights hub_;
  HubMatch match_;
};

class CheckpointSource final : public Pretrained::Source {
 public:
  CheckpointSource(const std::filesystem::path& directory, const ModelConfig& model) : checkpoint_(directory) {
    match_parameters(checkpoint_, model);
  }

  void load(Trainer& trainer, const Progress& progress) const override {
    Pool pool = pool_of(trainer.context(), trainer.mesh().world);
    load_values(trainer.context(), checkpoint_, trainer.state(), trainer.host_visible(), &pool, progress);
  }
  void load(Context& ctx, Stage& stage, bool host_visible, Pool& pool, const Progress& progress) const override {
    load_values(ctx, checkpoint_, {.groups = stage.groups()}, host_visible, &pool, progress);
  }
  std::string describe() const override { return sluice::describe(checkpoint_); }

 private:
  Checkpoint checkpoint_;
};

// The first rank says how far it is, and at the end what was loaded.
void load_and_tell(Context& ctx, Communicator& world, const Pretrained::Source& source,
                   const std::function<void(const Pretrained::Source::Progress&)>& load) {
  const bool first = world.world_rank() == 0;
  ProgressTimer timer;
  load([&](uint64_t done, uint64_t all) {
    if (!first || !timer.due()) return;
    log::info("loading weights: {} %", 100 * done / std::max<uint64_t>(all, 1));
  });
  world.barrier(ctx.compute(), "weights loaded");
  if (first) log::info("loaded {} in {}", source.describe(), format_duration(timer.seconds()));
}

std::unique_ptr<const Pretrained::Source> open_source(const std::filesystem::path& directory,
                                                      const ModelConfig& model) {
  if (find_checkpoint(directory)) return std::make_unique<CheckpointSource>(directory, model);
  return std::make_unique<HubSource>(directory, model);
}

}  // namespace

Pretrained::Pretrained(const std::filesystem::path& directory, const ModelConfig& model)
    : source_(open_source(directory, model)) {}

Pretrained::~Pretrained() = default;

void Pretrained::load(Trainer& trainer) const {
  load_and_tell(trainer.context(), trainer.mesh().world, *source_,
                [&](const Source::Progress& progress) { source_->load(trainer, progress); });
}

void Pretrained::load(Context& ctx, Communicator& world, Stage& stage, bool host_visible) const {
  load_and_tell(ctx, world, *source_, [&](const Source::Progress& progress) {
    Pool pool = pool_of(ctx, world);
    source_->load(ctx, stage, host_visible, pool, progress);
  });
}

std::unique_ptr<Pretrained> find_pretrained(const Config& config, const RunSpec& spec, bool by_default) {
  const std::string source = config.model.config.pretrained_model_name_or_path.value_or("");
  const std::vector<std::string> cards = card_ids();
  const bool built_in = std::find(cards.begin(), cards.end(), source) != cards.end();
  const bool directory = !source.empty() && !built_in;
  const std::optional<bool> asked = config.model.load_weights;
  if (!asked.value_or(by_default)) return nullptr;
  WeightFiles files = directory ? find_weight_files(source) : WeightFiles{};
  if (directory && is_checkpoint(source)) files.readable = true;
  const std::string place = config.origin("model.load_weights").place();
  if (!asked && !files.any()) {
    if (directory) log::info("{} holds no weights: they are drawn at random", source);
    return nullptr;
  }
  if (!directory) {
    throw user_error("model.load_weights: {}", source.empty() ? "model.config names no directory"
                                                              : source + " is a built-in card, which has no weights")
        .at(place)
        .advise("set model.config.pretrained_model_name_or_path to a directory with config.json and weights");
  }
  if (!files.readable) {
    throw no_readable_weights(source, files, "to begin with random ones: --model.load_weights false");
  }
  if (spec.local_shard > 1) {
    throw user_error("model.load_weights with benchmark.local_shard {}: only a part of each layer's experts is there",
                     spec.local_shard)
        .at(place)
        .advise("set model.load_weights: false");
  }
  return std::make_unique<Pretrained>(source, spec.model);
}

}  // namespace sluice
