// Runs a small model for a few steps on any layout and collects what must not depend on the layout: the losses and
// every weight, put together from the ranks' shards.
#pragma once

#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "config/load.h"
#include "training/session.h"

namespace sluice::test {

struct Layout {
  std::string name;
  int ranks = 1;
  std::vector<std::string> overrides;  // "--distributed.pp_size=2"
  std::string family = "qwen3_moe";
  friend std::ostream& operator<<(std::ostream& out, const Layout& layout) { return out << layout.name; }
};

// The families that have a tiny model: about 60 thousand parameters in 4 layers of 8 experts (top 2), 128 tokens a
// step.
std::vector<std::string> tiny_families();
// One of them, or "deepseek_v3_mtp", which predicts the token after the next too.
Config tiny_config(const std::vector<std::string>& overrides, const std::string& name = "qwen3_moe");

struct Training {
  std::vector<double> losses;                          // by step
  std::vector<std::vector<LayerLoad>> loads;           // likewise, by layer with experts
  std::map<std::string, std::vector<double>> weights;  // by parameter, global
};

struct TrainingOptions {
  DeviceKind device = DeviceKind::ref;
  Hardware hardware = {};      // instead of `device`
  Courier* courier = nullptr;  // to the run's other processes; then what the other ranks have is left out (NaN)
  int threads = 1;
  bool async_comm = false;
  int steps = 5;
};

Training train(const Layout& layout, const TrainingOptions& options);

// GPUs to train on: the emulated one, and a real one that all ranks share, if it is there.
struct GpuCase {
  std::string name;  // "cuda_emulated", "cuda"
  Hardware hardware;
  std::string missing = {};  // why it cannot be used; then its tests are skipped
  friend std::ostream& operator<<(std::ostream& out, const GpuCase& gpu) { return out << gpu.name; }
};
GpuCase emulated_gpu();
GpuCase real_gpu();

// Largest difference between two runs: of losses relative to the loss, of weights per tensor over the tensor's maximum.
struct TrainingDifference {
  double loss = 0;
  double weight = 0;
  std::string worst_weight;
};
TrainingDifference compare(const Training& one, const Training& other);

}  // namespace sluice::test
