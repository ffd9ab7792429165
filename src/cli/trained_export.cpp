#include "cli/trained_export.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/hub_export.h"
#include "model/cards.h"
#include "model/family.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

fs::path checked_directory(const RunSpec& spec, const std::string& directory, Outputs& outputs) {
  if (spec.mesh.world > 1) {
    throw user_error("--export {} on {} ranks: one rank must hold all weights", directory, spec.mesh.world)
        .at("command line")
        .advise("leave --ranks out, and distributed.* at 1");
  }
  if (spec.model.num_experts > 0 && spec.router == RouterKind::forced) {
    throw user_error("--export {}: a forced gate has no router to write", directory)
        .at("command line")
        .advise("add --benchmark.balance router");
  }
  fs::path path = outputs.model_directory(directory, "--export");
  // With the header of the files, and config.json beside them.
  constexpr uint64_t kOfATensor = 160, kBeside = 16 << 10;
  const uint64_t names = kOfATensor * family_of(spec.model).tensors(spec.model).size() + kBeside;
  require_space(path, export_bytes(spec.model, spec.dtype) + names, "--export");
  return path;
}

}  // namespace

TrainedExport::TrainedExport(const Config& config, const RunSpec& spec, const std::string& directory, Outputs& outputs)
    : config_(config), staged_(checked_directory(spec, directory, outputs), outputs.overwrite()) {}

void TrainedExport::write(Trainer& trainer) {
  const RunSpec& spec = trainer.spec();
  const std::vector<FlatGroup*> groups = trainer.stage().groups();
  staged_.restore();
  const fs::path& to = staged_.path();
  const ExportCount count = export_weights(trainer.context(), spec.model, groups, to, spec.dtype, {});
  const std::string source = config_.model.config.pretrained_model_name_or_path.value_or("");
  const std::vector<HfOverride> overrides = model_overrides(config_);
  std::error_code ignored;
  const bool directory = fs::is_directory(source, ignored);
  if (directory) copy_hub_files(source, to, spec.dtype);
  if (!directory || !overrides.empty()) write_hub_config(load_hf_config(source, overrides), to, spec.dtype);
  staged_.commit();
  log::info("wrote {} ({})", staged_.target().string(), format_bytes(count.bytes));
}

}  // namespace sluice::cli
