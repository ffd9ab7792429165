// The weights a run begins with: a hub directory's, or a checkpoint's in whatever layout it was written.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "config/config.h"
#include "trainer/trainer.h"

namespace sluice {

class Pretrained {
 public:
  // User error unless the directory holds exactly this model's weights.
  Pretrained(const std::filesystem::path& directory, const ModelConfig& model);
  ~Pretrained();
  Pretrained(const Pretrained&) = delete;
  Pretrained& operator=(const Pretrained&) = delete;
  Pretrained(Pretrained&&) = delete;
  Pretrained& operator=(Pretrained&&) = delete;

  // On every rank: its part of them. The first one says what was loaded, and how far it is where that takes long. An
  // optimizer's moments are those of a run that begins.
  void load(Trainer& trainer) const;
  // The same for a stage that is not trained.
  void load(Context& ctx, Communicator& world, Stage& stage, bool host_visible) const;

  // Where they are read from.
  class Source;

 private:
  std::unique_ptr<const Source> source_;
};

// Null where weights are drawn at random. model.load_weights decides; without it they are loaded if `by_default` and
// model.config names a directory that has some, whatever their form: those that cannot be read are refused by name. A
// directory without any is one of random weights, which is said.
std::unique_ptr<Pretrained> find_pretrained(const Config& config, const RunSpec& spec, bool by_default);

}  // namespace sluice
