#include "cli/train_settings.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace sluice::cli {

void check_settings(const Config& config) {
  for (const auto& [key, left_out] : {std::pair{"benchmark.local_shard", config.benchmark.local_shard > 1},
                                      {"benchmark.optimizer", !config.benchmark.optimizer}}) {
    if (!left_out) continue;
    throw user_error("{}: what is left then does not train", key)
        .at(config.origin(key).place())
        .advise("sluice bench times it; leave the key out to train");
  }
  const bool no_validation = config.validation_dataset.target == config::DatasetKind::none;
  // NeMo's files say it beside no data too.
  const bool of_nemos_file = config.program == config::Program::nemo &&
                             config.origin("step_scheduler.val_every_steps").kind == config::Origin::Kind::file;
  if (config.step_scheduler.val_every_steps && no_validation && !of_nemos_file) {
    throw user_error("step_scheduler.val_every_steps {} but validation_dataset names no data",
                     *config.step_scheduler.val_every_steps)
        .at(config.origin("step_scheduler.val_every_steps").place())
        .advise("give validation_dataset a _target_ (mock, bytes), or leave val_every_steps out");
  }
}

// Keys that have no effect on this model.
void warn_of_idle_keys(const Config& config, const RunSpec& spec) {
  for (const std::string& pattern : unmatched_patterns(config, spec.model)) {
    log::warn("optimizer.param_group_overrides: no parameter's name has the pattern \"{}\"", pattern);
  }
  // Beside a forced gate, and a weight of 0 in the file, it is said with the configuration.
  const bool idle = config.model.aux_loss_over && spec.aux_loss_coef == 0 && !config.model.aux_loss_coef;
  if (idle && spec.router != RouterKind::forced) {
    log::warn("{}: model.aux_loss_over {}: the balance loss of {} has weight 0 unless model.aux_loss_coef is given",
              config.origin("model.aux_loss_over").place(), config::word(*config.model.aux_loss_over), spec.model.name);
  }
}

// One line for all that the file has and that changes nothing, so that nobody waits for it.
void say_ignored(const Config& config, const std::string& file) {
  std::string keys;
  for (const config::IgnoredKey& ignored : config.ignored) keys += (keys.empty() ? "" : ", ") + ignored.key;
  if (!keys.empty()) log::info("without effect here (sluice config {} says why): {}", file, keys);
}

}  // namespace sluice::cli
