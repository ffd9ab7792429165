#include "train/pretrained.h"

#include <algorithm>
#include <optional>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/weight_files.h"
#include "model/cards.h"

namespace sluice {

void Pretrained::load_by(Context& ctx, Communicator& world, const std::function<void(const Progress&)>& import) const {
  const bool first = world.world_rank() == 0;
  ProgressTimer timer;
  import([&](int64_t done, int64_t all) {
    if (!first || !timer.due()) return;
    log::info("loading weights: {} %", 100 * done / std::max<int64_t>(all, 1));
  });
  world.barrier(ctx.compute(), "weights loaded");
  if (first) log::info("loaded {} in {}", describe(match_, hub_), format_duration(timer.seconds()));
}

void Pretrained::load(Trainer& trainer) const {
  load_by(trainer.context(), trainer.mesh().world, [&](const Progress& progress) { trainer.load(match_, progress); });
}

void Pretrained::load(Context& ctx, Communicator& world, Stage& stage, bool host_visible) const {
  load_by(ctx, world, [&](const Progress& progress) {
    std::vector<GroupShard> shards;
    for (FlatGroup* group : stage.groups()) shards.push_back({.group = group});
    Pool pool(std::max(1, ctx.backend().target().workers / world.size()));
    import_weights(ctx, match_, shards, {.pool = &pool, .host_visible = host_visible, .progress = progress});
  });
}

std::unique_ptr<Pretrained> find_pretrained(const Config& config, const RunSpec& spec, bool by_default) {
  const std::string source = config.model.config.pretrained_model_name_or_path.value_or("");
  const std::vector<std::string> cards = card_ids();
  const bool built_in = std::find(cards.begin(), cards.end(), source) != cards.end();
  const bool directory = !source.empty() && !built_in;
  const std::optional<bool> asked = config.model.load_weights;
  if (!asked.value_or(by_default)) return nullptr;
  const WeightFiles files = directory ? find_weight_files(source) : WeightFiles{};
  const std::string place = config.origin("model.load_weights").place();
  if (!asked && !files.any()) {
    if (directory) log::info("{} holds no weights: they are drawn at random", source);
    return nullptr;
  }
  if (!directory) {
    throw user_error("model.load_weights: {}", source.empty() ? "model.config names no directory"
                                                              : source + " is a built-in card, which has no weights")
        .at(place)
        .advise("set model.config.pretrained_model_name_or_path to a directory with config.json and safetensors");
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
