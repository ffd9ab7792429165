// Fifty steps of training as transformers and torch.optim.AdamW made them (make_trajectories.py), and ours of the same.
#pragma once

#include <nlohmann/json.hpp>

#include <map>
#include <string>
#include <vector>

#include "golden.h"

namespace sluice::test {

std::filesystem::path trajectories_directory();
const nlohmann::json& trajectories_manifest();
// "llama", "gpt_oss", ...: each is the name of a golden, whose weights it begins with.
std::vector<std::string> trajectory_names();

class Trajectory {
 public:
  explicit Trajectory(const std::string& name);

  const Golden& golden() const { return golden_; }
  double setting(const std::string& key) const { return facts_.at("settings").at(key).get<double>(); }
  bool has(const std::string& tensor) const { return stored_.tensors().contains(tensor); }
  std::vector<double> values(const std::string& tensor) const { return stored_values(stored_, tensor); }
  const safetensors::StoredTensor& stored(const std::string& tensor) const { return stored_.at(tensor); }
  // Tensors whose names begin so.
  int64_t count(const std::string& prefix) const;
  // The run as a user would write it.
  RunSpec spec(const std::vector<std::string>& overrides, int ranks = 1) const;

 private:
  const nlohmann::json& facts_;
  Golden golden_;
  safetensors::Model stored_;
};

// The trajectory's sequences, in the order of its steps.
class TrajectoryTokens final : public Dataset {
 public:
  explicit TrajectoryTokens(const Trajectory& trajectory);
  void sample(int64_t id, std::span<int32_t> tokens) const override;
  int64_t size() const override { return static_cast<int64_t>(tokens_.size() / length_); }
  int64_t vocab_size() const override;
  std::string identity() const override { return "TrajectoryTokens"; }

 private:
  std::vector<int32_t> tokens_;
  size_t length_;
};

// What our steps gave, on one rank.
struct TrajectoryResult {
  std::vector<StepResult> steps;
  std::map<std::string, std::vector<int32_t>> loads;  // of selection biases, by layer: of all steps
  HubValues before;                                   // the weights
  HubValues after;
};
TrajectoryResult follow(const Trajectory& trajectory, const RunSpec& spec, int64_t steps, Backend& backend);

// What is stored of a weight after the last step: all of a small one, else its largest and three inner products with
// fixed vectors.
std::vector<double> digest(const std::vector<double>& values);

}  // namespace sluice::test
