#include "parallel/stage.h"

#include <algorithm>

namespace sluice {

LayerRange layers_of_stage(int64_t layers, int64_t stages, int64_t stage) {
  const int64_t share = layers / stages;
  const int64_t longer = layers % stages;
  return {stage * share + std::min(stage, longer), share + (stage < longer ? 1 : 0)};
}

Unit Stage::make_unit(const std::string& name, const std::function<void(const ParamVisitor&)>& visit) {
  std::vector<Param*> dense;
  std::vector<Param*> expert;
  std::vector<Param*> balanced;
  visit([&](Param& param) {
    const bool trained = param.spec.balanced_top_k == 0;
    (!trained ? balanced : param.spec.mesh == ParamMesh::dense ? dense : expert).push_back(&param);
  });
  Unit unit;
  if (!dense.empty()) {
    unit.groups.push_back(std::make_unique<FlatGroup>(name, std::move(dense), *mesh_.fsdp, mesh_.replicate.get(),
                                                      config_.dense_groups, memory_, &dense_buffers_));
  }
  if (!expert.empty()) {
    unit.groups.push_back(std::make_unique<FlatGroup>(name + ".experts", std::move(expert), *mesh_.ep_shard, nullptr,
                                                      config_.expert_groups, memory_, &expert_buffers_));
  }
  if (!balanced.empty()) {
    // A few numbers, whose steps are too small for bf16.
    const FlatGroupOptions options{.dtype = accumulator_of(config_.dense_groups.dtype),
                                   .gradients = config_.dense_groups.gradients};
    unit.groups.push_back(std::make_unique<FlatGroup>(name + ".balance", std::move(balanced), *mesh_.fsdp,
                                                      mesh_.replicate.get(), options, memory_, nullptr));
  }
  return unit;
}

Stage::Stage(const StageConfig& config, Mesh& mesh, Memory& memory)
    : config_(config), mesh_(mesh), memory_(memory), dense_buffers_(memory), expert_buffers_(memory) {
  const int num_stages = mesh.spec.pp * config.chunks;
  const auto num_layers = static_cast<int64_t>(config.blocks.size());
  chunks_.resize(static_cast<size_t>(config.chunks));
  for (int c = 0; c < config.chunks; ++c) {
    Chunk& chunk = chunks_[static_cast<size_t>(c)];
    chunk.model_stage = c * mesh.spec.pp + mesh.at.pp;
    if (chunk.model_stage == 0) {
      chunk.embedding.emplace("embedding", config.vocab, config.hidden, config.init_std);
      chunk.embedding_unit = make_unit("embedding", [&](const ParamVisitor& v) { chunk.embedding->visit(v); });
    }
    const LayerRange range = layers_of_stage(num_layers, num_stages, chunk.model_stage);
    chunk.first_layer = range.first;
    for (int64_t layer = range.first; layer < range.first + range.count; ++layer) {
      const std::string name = "layers." + std::to_string(layer);
      chunk.blocks.push_back(std::make_unique<Block>(name, config.blocks[static_cast<size_t>(layer)], *mesh.ep));
      Block& block = *chunk.blocks.back();
      chunk.block_units.push_back(make_unit(name, [&](const ParamVisitor& v) { block.visit(v); }));
    }
    if (chunk.model_stage == num_stages - 1) {
      Chunk& first = chunks_.front();
      chunk.end = std::make_unique<ModelEnd>(
          config, *mesh.ep, first.embedding ? &*first.embedding : nullptr,
          first.embedding ? &first.embedding_unit : nullptr,
          [this](const std::string& name, const auto& visit) { return make_unit(name, visit); });
    }
  }
}

std::vector<FlatGroup*> Stage::groups() {
  std::vector<FlatGroup*> all;
  const auto add = [&](Unit& unit) {
    for (auto& group : unit.groups) all.push_back(group.get());
  };
  for (Chunk& chunk : chunks_) {
    add(chunk.embedding_unit);
    for (Unit& unit : chunk.block_units) add(unit);
    if (!chunk.end) continue;
    for (Unit* unit : chunk.end->units()) add(*unit);
  }
  return all;
}

Stage::SharedEmbedding Stage::shared_embedding() {
  if (!(config_.mtp || config_.tied_head) || mesh_.spec.pp == 1) return {};
  if (mesh_.at.pp == 0) return {chunks_.front().embedding_unit.groups.front().get(), mesh_.spec.pp - 1};
  if (chunks_.back().end) return {chunks_.back().end->embedding_copy(), 0};
  return {};
}

}  // namespace sluice
