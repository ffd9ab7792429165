#include "cli/checkpoint_settings.h"

#include <system_error>

#include "base/error.h"
#include "config/load.h"

namespace sluice::cli {
namespace {

std::string in_yaml(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' || c == '\\' ? std::string{'\\', c} : std::string{c};
  return quoted + "\"";
}

}  // namespace

Config run_of_checkpoint(const std::filesystem::path& checkpoint) {
  const std::filesystem::path file = checkpoint / kSettingsFile;
  std::error_code failed;
  if (!std::filesystem::exists(file, failed)) {
    throw user_error("checkpoint {} has no {}", checkpoint.string(), kSettingsFile)
        .advise(fmt::format("name the run's file instead, with model.config.pretrained_model_name_or_path: {}",
                            checkpoint.string()));
  }
  Config config = config::load(file);
  const config::Origin origin = {config::Origin::Kind::command_line, checkpoint.string()};
  config::set(config, "model.config.pretrained_model_name_or_path", in_yaml(checkpoint.string()), origin);
  config::set(config, "model.load_weights", "true", origin);
  return config;
}

Config config_of_model(const std::filesystem::path& directory) {
  return config::parse(
      fmt::format("model: {{config: {{pretrained_model_name_or_path: {}}}}}", in_yaml(directory.string())),
      directory.string());
}

}  // namespace sluice::cli
