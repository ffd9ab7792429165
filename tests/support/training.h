// Runs a small model for a few steps on any layout and collects what must not depend on the layout: the losses and
// every weight, put together from the ranks' shards.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "config/load.h"
#include "train/session.h"

namespace sluice::test {

struct Layout {
  std::string name;
  int ranks = 1;
  std::vector<std::string> overrides;  // "--distributed.pp_size=2"
  std::string family = "qwen3_moe";
};

// The families that have a tiny model: about 60 thousand parameters in 4 layers of 8 experts (top 2), 128 tokens a
// step.
std::vector<std::string> tiny_families();
Config tiny_config(const std::vector<std::string>& overrides, const std::string& family = "qwen3_moe");

struct Training {
  std::vector<double> losses;                          // by step
  std::map<std::string, std::vector<double>> weights;  // by parameter, global
};

struct TrainingOptions {
  Device device = Device::ref;
  int threads = 1;
  bool async_comm = false;
  int steps = 5;
};

Training train(const Layout& layout, const TrainingOptions& options);

// Largest difference between two runs: of losses relative to the loss, of weights per tensor over the tensor's maximum.
struct TrainingDifference {
  double loss = 0;
  double weight = 0;
  std::string worst_weight;
};
TrainingDifference compare(const Training& one, const Training& other);

}  // namespace sluice::test
