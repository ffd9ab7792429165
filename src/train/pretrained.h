// The weights a run begins with where they are a hub directory's.
#pragma once

#include <filesystem>
#include <memory>

#include "config/config.h"
#include "train/trainer.h"

namespace sluice {

class Pretrained {
 public:
  // User error unless the directory holds exactly this model's weights.
  Pretrained(const std::filesystem::path& directory, const ModelConfig& model)
      : hub_(directory), match_(match_weights(hub_, model)) {
    check_repeats(match_);
  }

  // On every rank: its part of them. The first one says what was loaded, and how far it is where that takes long.
  void load(Trainer& trainer) const;
  // The same for a stage that is not trained.
  void load(Context& ctx, Communicator& world, Stage& stage, bool host_visible) const;

 private:
  using Progress = std::function<void(int64_t done, int64_t all)>;
  void load_by(Context& ctx, Communicator& world, const std::function<void(const Progress&)>& import) const;

  HubWeights hub_;
  HubMatch match_;
};

// Null where weights are drawn at random. model.load_weights decides; without it they are loaded if `by_default` and
// model.config names a directory that has some, whatever their form: those that cannot be read are refused by name. A
// directory without any is one of random weights, which is said.
std::unique_ptr<Pretrained> find_pretrained(const Config& config, const RunSpec& spec, bool by_default);

}  // namespace sluice
