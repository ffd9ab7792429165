// The part of a model one pipeline rank holds: for each of its chunks the units (embedding, blocks, head) with their
// parameter groups.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/mesh.h"
#include "nn/block.h"
#include "nn/embedding.h"
#include "parallel/model_end.h"
#include "parallel/unit.h"

namespace sluice {

struct StageConfig {
  std::vector<BlockConfig> blocks;  // of the whole model, in order
  std::optional<BlockConfig> mtp;   // the extra layer that predicts the token after the next
  int64_t vocab = 0;
  int64_t hidden = 0;
  int64_t seq_len = 0;
  double norm_eps = 0;
  double init_std = 0;
  double rope_theta = 0;
  RopeScaling rope_scaling;
  bool tied_head = false;  // the head's matrix is the embedding
  double z_loss_coef = 0;  // of the logits: see HeadLoss
  int chunks = 1;          // virtual stages per rank
  FlatGroupOptions dense_groups;
  FlatGroupOptions expert_groups;

  // The same for a model that is only run: no memory for gradients.
  StageConfig without_gradients() const {
    StageConfig config = *this;
    config.dense_groups.gradients = config.expert_groups.gradients = false;
    return config;
  }
};

// Layers [first, first + count) of `layers`, cut into `stages` consecutive parts of which the first `layers % stages`
// have one more.
struct LayerRange {
  int64_t first = 0;
  int64_t count = 0;
};
LayerRange layers_of_stage(int64_t layers, int64_t stages, int64_t stage);

struct Chunk {
  int model_stage = 0;
  int64_t first_layer = 0;
  std::optional<Embedding> embedding;
  std::vector<std::unique_ptr<Block>> blocks;
  std::unique_ptr<ModelEnd> end;
  Unit embedding_unit;
  std::vector<Unit> block_units;
};

class Stage {
 public:
  // Builds this rank's chunks and takes memory for their parameters.
  Stage(const StageConfig& config, Mesh& mesh, Memory& memory);

  std::vector<Chunk>& chunks() { return chunks_; }
  // Every parameter group of this rank, in model order.
  std::vector<FlatGroup*> groups();
  // This rank's embedding group if another stage has a copy of it, or that copy; null where neither is. And the
  // pipeline rank of the other.
  struct SharedEmbedding {
    FlatGroup* group = nullptr;
    int peer = 0;
  };
  SharedEmbedding shared_embedding();
  const StageConfig& config() const { return config_; }

 private:
  Unit make_unit(const std::string& name, const std::function<void(const ParamVisitor&)>& visit);

  StageConfig config_;
  Mesh& mesh_;
  Memory& memory_;
  GatherBuffers dense_buffers_;
  GatherBuffers expert_buffers_;
  std::vector<Chunk> chunks_;
};

}  // namespace sluice
