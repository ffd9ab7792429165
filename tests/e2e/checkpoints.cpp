#include "e2e/checkpoints.h"

#include <filesystem>
#include <memory>

#include "base/file.h"
#include "checkpoint/export_trained.h"
#include "checkpoint/hub_import.h"
#include "comm/inproc/inproc.h"
#include "device/cpu/cpu_backend.h"
#include "model/cards.h"
#include "support/stage_config.h"

namespace sluice::test {

namespace fs = std::filesystem;

std::string checkpoint_of(const Folder& folder, const std::string& name, const std::string& golden,
                          const MeshSpec& mesh) {
  const std::string source = fs::exists(folder.path(golden)) ? folder.path(golden) : hub_directory(folder, golden);
  const std::string path = folder.path(name);
  fs::create_directories(path);
  ModelConfig model = load_model(source);
  model.mtp = golden.ends_with("_mtp");
  const HubWeights hub(source);
  const HubMatch match = match_weights(hub, model);
  InprocWorld world(mesh.world);
  world.run([&](int rank) {
    const std::unique_ptr<Communicator> ranks = world.communicator(rank);
    HostMemory memory;
    Pool pool(1);
    CpuBackend backend(pool);
    Context ctx(backend, DType::f32);
    Mesh meshed(mesh, *ranks);
    Stage stage(stage_config(model, DType::f32), meshed, memory);
    std::vector<GroupShard> shards;
    for (FlatGroup* group : stage.groups()) {
      group->initialize(ctx, 1);
      shards.push_back({group});
    }
    import_weights(ctx, match, shards, {});
    save_values(ctx, meshed.world, {stage.groups()}, path);
  });
  write_model_files(source, {}, path, DType::f32);
  write_file_atomic(fs::path(path) / "config.yaml",
                    "step_scheduler: {global_batch_size: 4, local_batch_size: 2, max_steps: 2}\n"
                    "model: {config: {pretrained_model_name_or_path: gone}, load_weights: false}\n"
                    "dataset: {_target_: mock, seq_len: 16}\n");
  return path;
}

}  // namespace sluice::test
