#include "checkpoint/checkpoint_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <string>
#include <system_error>

#include "base/error.h"
#include "base/text.h"
#include "checkpoint/checkpoint_folder.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/weight_files.h"
#include "model/hf_config.h"

namespace sluice {

namespace fs = std::filesystem;

namespace {

// Of a layer's router where the balance loss is over the global batch.
constexpr std::string_view kLoadShare = ".router.load_share";

// How the names of the layer that predicts further tokens begin.
std::string extra_layer(const ModelConfig& model) {
  return fmt::format("layers.{}.", model.num_layers);
}

}  // namespace

std::optional<fs::path> find_checkpoint(const fs::path& directory) {
  std::error_code failed;
  if (!fs::is_directory(directory, failed)) return {};
  if (const fs::path link = directory / kLatest; fs::is_symlink(link, failed)) {
    fs::path target = directory / fs::read_symlink(link, failed);
    if (is_checkpoint(target)) return target;
    throw user_error("{} leads to {}, where no checkpoint is", link.string(), target.string())
        .advise("name one of the checkpoints beside it");
  }
  if (!is_checkpoint(directory)) {
    if (!is_checkpoint_folder(directory)) return {};
    throw user_error("the run in {} has no complete checkpoint yet", directory.string())
        .advise("name one of its checkpoints, step-N, or wait for the first");
  }
  // Programs for the hub may put a manifest of their own beside a model's weights.
  const bool ranks = fs::exists(directory / rank_file_name(0), failed);
  if (!ranks && find_weight_files(directory).readable) return {};
  return directory;
}

ModelConfig model_of(const Checkpoint& checkpoint) {
  ModelConfig model = make_model(HfConfig::load(checkpoint.path()));
  model.name = checkpoint.path().filename();
  model.mtp = model.nextn_layers == 1 && std::ranges::any_of(checkpoint.parameters(), [&](const auto& parameter) {
                return parameter.first.starts_with(extra_layer(model));
              });
  match_parameters(checkpoint, model);
  return model;
}

void match_parameters(const Checkpoint& checkpoint, const ModelConfig& model) {
  std::set<std::string> wanted;
  for (const HubTensor& tensor : family_of(model).tensors(model)) {
    checkpoint.require_parameter(tensor.parameter, tensor.parameter_shape);
    wanted.insert(tensor.parameter);
  }
  const bool left_out = model.nextn_layers == 1 && !model.mtp;
  for (const auto& [name, parameter] : checkpoint.parameters()) {
    if (wanted.contains(name) || (left_out && name.starts_with(extra_layer(model)))) continue;
    if (name.ends_with(kLoadShare)) continue;  // what a run keeps for the next step (ParamSpec::holds_shares)
    throw user_error("checkpoint {} has a parameter {}, which the model ({}) lacks", checkpoint.path().string(),
                     safetensors::in_quotes(name), model.model_type);
  }
}

std::string describe(const Checkpoint& checkpoint) {
  int64_t elements = 0;
  for (const auto& [name, parameter] : checkpoint.parameters()) elements += parameter.numel();
  return fmt::format("step {}, {} parameters ({}) from {}", format_count(checkpoint.manifest().run.step),
                     format_magnitude(static_cast<double>(elements)), format_bytes(checkpoint.bytes()),
                     checkpoint.path().string());
}

}  // namespace sluice
