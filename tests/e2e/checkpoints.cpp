#include "e2e/checkpoints.h"

#include <filesystem>

#include "base/file.h"
#include "checkpoint/export_trained.h"
#include "checkpoint/hub_import.h"
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
  on_stages(mesh, model, DType::f32, [&](Context& ctx, Mesh& meshed, Stage& stage, Memory&) {
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
