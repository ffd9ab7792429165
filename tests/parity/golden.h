// What Hugging Face transformers computed for a tiny model (make_goldens.py), as it was stored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "data/dataset.h"
#include "parallel/stage.h"
#include "trainer/run_spec.h"
#include "trainer/trainer.h"

namespace sluice::test {

std::filesystem::path goldens_directory();
// "llama", "gpt_oss", ...
std::vector<std::string> golden_names();

// All elements of a stored tensor of floats.
std::vector<double> stored_values(const safetensors::Model& model, const std::string& tensor);
std::vector<int32_t> stored_integers(const safetensors::Model& model, const std::string& tensor);

class Golden {
 public:
  explicit Golden(const std::string& name);

  const std::filesystem::path& directory() const { return directory_; }
  // Of golden_f64.
  std::vector<double> values(const std::string& tensor) const { return stored_values(f64_, tensor); }
  std::vector<int32_t> integers(const std::string& tensor) const { return stored_integers(f64_, tensor); }
  // Layers whose routing was stored, ascending.
  std::vector<int64_t> routed_layers() const;
  // Tensors called `prefix` + a hub name in golden_f64.
  int64_t count(const std::string& prefix) const;
  // Whether the model predicts the token after the next too.
  bool has_mtp() const { return count("mtp_logits") > 0; }
  // The weights on the hub.
  std::vector<double> weights(const std::string& hub_name) const { return stored_values(weights_, hub_name); }

 private:
  std::filesystem::path directory_;
  safetensors::Model weights_;
  safetensors::Model f64_;
};

// Of every golden: tokens of a sequence, sequences of a batch.
inline constexpr int64_t kSeqLen = 32, kBatch = 2;
// Of the extra layer's loss, where there is one.
inline constexpr double kMtpWeight = 0.3;

// A run of the golden's model with what it was made with.
RunSpec spec_of(const Golden& golden, int64_t steps, DType dtype);
// Gives a stage on one rank the golden's weights.
void import_weights(Context& ctx, Stage& stage, const ModelConfig& model, const Golden& golden);

// A parameter's values in the hub's layout, by hub name; those that the hub stores twice once.
using HubValues = std::map<std::string, std::vector<double>>;
HubValues hub_values(Trainer& trainer, const std::function<std::vector<double>(const Param& param)>& of);

// Largest error over the largest value. All zero (an expert that no token chose) must be zero here too.
double error_of(const std::vector<double>& got, const std::vector<double>& expected);

// The golden's sequences, in the order of its steps.
class GoldenTokens final : public Dataset {
 public:
  GoldenTokens(const Golden& golden, int64_t seq_len, int64_t vocab);
  void sample(int64_t id, std::span<int32_t> tokens) const override;
  int64_t size() const override { return std::ssize(labels_) / seq_len_; }
  int64_t vocab_size() const override { return vocab_; }
  std::string identity() const override { return "GoldenTokens"; }

 private:
  std::vector<int32_t> inputs_;
  std::vector<int32_t> labels_;
  int64_t seq_len_;
  int64_t vocab_;
};

}  // namespace sluice::test
