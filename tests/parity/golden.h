// What Hugging Face transformers computed for a tiny model (make_goldens.py), as it was stored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/safetensors.h"
#include "data/dataset.h"
#include "parallel/flat_group.h"

namespace sluice::test {

std::filesystem::path goldens_directory();
// "llama", "gpt_oss", ...
std::vector<std::string> golden_names();

class Golden {
 public:
  explicit Golden(const std::string& name);

  const std::filesystem::path& directory() const { return directory_; }
  // Of golden_f64.
  std::vector<double> values(const std::string& tensor) const { return values_of(f64_, tensor); }
  std::vector<int32_t> integers(const std::string& tensor) const;
  // Layers whose routing was stored, ascending.
  std::vector<int64_t> routed_layers() const;
  // Tensors called `prefix` + a hub name in golden_f64.
  int64_t count(const std::string& prefix) const;
  // Whether the model predicts the token after the next too.
  bool has_mtp() const { return count("mtp_logits") > 0; }
  // The weights on the hub.
  std::vector<double> weights(const std::string& hub_name) const { return values_of(weights_, hub_name); }

 private:
  static std::vector<double> values_of(const safetensors::Model& model, const std::string& tensor);

  std::filesystem::path directory_;
  safetensors::Model weights_;
  safetensors::Model f64_;
};

// The golden's sequences, in the order of its steps.
class GoldenTokens final : public Dataset {
 public:
  GoldenTokens(const Golden& golden, int64_t seq_len, int64_t vocab);
  void sample(int64_t id, std::span<int32_t> tokens) const override;
  int64_t size() const override { return std::ssize(labels_) / seq_len_; }
  int64_t vocab_size() const override { return vocab_; }

 private:
  std::vector<int32_t> inputs_;
  std::vector<int32_t> labels_;
  int64_t seq_len_;
  int64_t vocab_;
};

}  // namespace sluice::test
