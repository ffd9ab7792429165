// What a model's parameters are made from, where a test needs no run.
#pragma once

#include <memory>

#include "comm/inproc/inproc.h"
#include "device/cpu/cpu_backend.h"
#include "model/family.h"
#include "parallel/stage.h"

namespace sluice::test {

inline StageConfig stage_config(const ModelConfig& model, DType dtype, int64_t seq_len = 8) {
  StageConfig stage;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    stage.blocks.push_back(family_of(model).block(model, layer, seq_len));
  }
  if (model.mtp) stage.mtp = family_of(model).block(model, model.num_layers, seq_len);
  stage.vocab = model.vocab_size;
  stage.hidden = model.hidden_size;
  stage.seq_len = seq_len;
  stage.norm_eps = model.norm_eps;
  stage.init_std = model.init_std;
  stage.rope_theta = model.rope_theta;
  stage.rope_scaling = model.rope_scaling;
  stage.tied_head = model.tied_head;
  stage.dense_groups.dtype = stage.expert_groups.dtype = dtype;
  return stage;
}

// Calls f(context, mesh, stage, memory) on each rank of a mesh, with the parameters of its stage not yet set.
template <class F>
void on_stages(const MeshSpec& mesh, const ModelConfig& model, DType dtype, F&& f) {
  InprocWorld world(mesh.world);
  world.run([&](int rank) {
    const std::unique_ptr<Communicator> ranks = world.communicator(rank);
    HostMemory memory;
    Pool pool(1);
    CpuBackend backend(pool);
    Context ctx(backend, dtype);
    Mesh meshed(mesh, *ranks);
    Stage stage(stage_config(model, dtype), meshed, memory);
    f(ctx, meshed, stage, memory);
  });
}

}  // namespace sluice::test
