#include "cli/trained_export.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/export_trained.h"
#include "machine/machine_info.h"
#include "model/family.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

fs::path checked_directory(const RunSpec& spec, const std::string& directory, Outputs& outputs) {
  if (spec.model.num_experts > 0 && spec.router == RouterKind::forced) {
    throw user_error("--export {}: a forced gate has no router to write", directory)
        .at("command line")
        .advise("add --benchmark.balance router");
  }
  fs::path path = outputs.model_directory(directory, "--export");
  // With the header of the files, and config.json beside them.
  constexpr uint64_t kOfATensor = 160, kBeside = 16 << 10;
  const uint64_t names = kOfATensor * family_of(spec.model).tensors(spec.model).size() + kBeside;
  // The parameters themselves lie beside them until they are converted; bf16 ones may have masters of f32.
  const size_t element = std::max(size_of(spec.dtype), sizeof(float));
  const uint64_t values = static_cast<uint64_t>(param_count(spec.model).total) * element;
  require_space(path, export_bytes(spec.model, spec.dtype) + values + 2 * names, "--export");
  return path;
}

}  // namespace

TrainedExport::TrainedExport(const Config& config, const RunSpec& spec, const std::string& directory, Outputs& outputs)
    : config_(config), staged_(checked_directory(spec, directory, outputs), outputs.overwrite()) {}

void TrainedExport::write(Trainer& trainer) {
  const RunSpec& spec = trainer.spec();
  const bool first = trainer.mesh().world.world_rank() == 0;
  if (first) staged_.restore();
  trainer.mesh().world.barrier(trainer.context().compute(), "begin of the export");
  // The first rank converts while the others wait.
  Pool pool(trainer.context().backend().target().workers);
  const ExportCount count = export_trained(trainer.context(), trainer.mesh().world, trainer.state(), spec.model,
                                           staged_.path(), spec.dtype, {.pool = first ? &pool : nullptr});
  if (first) complete(count, spec.dtype);
}

void TrainedExport::write(const Checkpoint& checkpoint, const RunSpec& spec) {
  staged_.restore();
  Pool pool(usable_cores());
  complete(export_checkpoint(checkpoint, spec.model, staged_.path(), spec.dtype, {.pool = &pool}), spec.dtype);
}

void TrainedExport::complete(const ExportCount& count, DType dtype) {
  write_model_files(config_.model.config.pretrained_model_name_or_path.value_or(""), model_overrides(config_),
                    staged_.path(), dtype);
  staged_.commit();
  log::info("wrote {} ({})", staged_.target().string(), format_bytes(count.bytes));
}

}  // namespace sluice::cli
