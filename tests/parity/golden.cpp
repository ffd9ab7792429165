#include "golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "base/error.h"
#include "config/load.h"
#include "model/family.h"
#include "support/host_tensor.h"

namespace sluice::test {

std::filesystem::path goldens_directory() {
  return std::filesystem::path(SLUICE_SOURCE_DIR) / "tests/parity/goldens";
}

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(goldens_directory())) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

std::vector<double> stored_values(const safetensors::Model& model, const std::string& tensor) {
  const safetensors::StoredTensor& stored = model.at(tensor);
  std::vector<double> values(safetensors::bytes_of(stored.spec) / safetensors::size_of(stored.spec.type));
  safetensors::read_elements(stored, 0, tensor_of(values.data(), {std::ssize(values)}));
  return values;
}

std::vector<int32_t> stored_integers(const safetensors::Model& model, const std::string& tensor) {
  const safetensors::StoredTensor& stored = model.at(tensor);
  require(stored.spec.type == safetensors::Type::i32, "{} is not of integers", tensor);
  std::vector<int32_t> values(stored.bytes.size() / sizeof(int32_t));
  std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
  return values;
}

Golden::Golden(const std::string& name)
    : directory_(goldens_directory() / name),
      weights_(directory_ / "weights.safetensors"),
      f64_(directory_ / "golden_f64.safetensors") {}

std::vector<int64_t> Golden::routed_layers() const {
  std::vector<int64_t> layers;
  for (const auto& [name, stored] : f64_.tensors()) {
    if (name.starts_with("router.") && name.ends_with(".experts")) layers.push_back(std::stoll(name.substr(7)));
  }
  std::ranges::sort(layers);
  return layers;
}

int64_t Golden::count(const std::string& prefix) const {
  return std::ranges::count_if(f64_.tensors(), [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

RunSpec spec_of(const Golden& golden, int64_t steps, DType dtype) {
  const Config config = config::parse(fmt::format(R"(
step_scheduler: {{global_batch_size: {}, local_batch_size: {}, max_steps: {}}}
model: {{config: {{pretrained_model_name_or_path: {}}}, aux_loss_coef: 0, mtp_loss_weight: {}}}
benchmark: {{balance: router}}
dataset: {{_target_: mock, seq_len: {}}}
runtime: {{dtype: {}}}
optimizer: {{_target_: torch.optim.AdamW, lr: 1.0e-3, betas: [0.9, 0.999], eps: 1.0e-4, weight_decay: 0}}
)",
                                                  kBatch, kBatch, steps, golden.directory().string(),
                                                  golden.has_mtp() ? kMtpWeight : 0, kSeqLen, name_of(dtype)),
                                      "parity");
  RunSpec spec = resolve(config, 1);
  spec.selection_bias_rate = 0;  // transformers leaves it to others
  return spec;
}

void import_weights(Context& ctx, Stage& stage, const ModelConfig& model, const Golden& golden) {
  for (FlatGroup* group : stage.groups()) group->end_gather(ctx);
  std::map<std::string, std::vector<double>> ours;
  std::map<std::string, int64_t> covered;
  for (const HubTensor& tensor : family_of(model).tensors(model)) {
    if (tensor.repeated) continue;
    const std::vector<double> stored = golden.weights(tensor.hub_name);
    ASSERT_EQ(std::ssize(stored), tensor.hub_shape.numel()) << tensor.hub_name;
    std::vector<double>& values = ours[tensor.parameter];
    values.resize(static_cast<size_t>(tensor.parameter_shape.numel()));
    for (int64_t i = 0; i < tensor.hub_shape.numel(); ++i) {
      values[static_cast<size_t>(tensor.first() + i)] = stored[static_cast<size_t>(tensor.hub_index(i))];
    }
  }
  for (FlatGroup* group : stage.groups()) {
    for (Param* param : group->params()) assign(param->value, ours.at(param->spec.name));
    group->invalidate();
  }
}

HubValues hub_values(Trainer& trainer, const std::function<std::vector<double>(const Param& param)>& of) {
  std::map<std::string, Param*> params;
  for (FlatGroup* group : trainer.stage().groups()) {
    for (Param* param : group->params()) params[param->spec.name] = param;
  }
  HubValues all;
  for (const HubTensor& tensor : family_of(trainer.spec().model).tensors(trainer.spec().model)) {
    if (tensor.repeated) continue;
    const std::vector<double> ours = of(*params.at(tensor.parameter));
    std::vector<double>& stored = all[tensor.hub_name];
    stored.resize(static_cast<size_t>(tensor.hub_shape.numel()));
    for (int64_t i = 0; i < tensor.hub_shape.numel(); ++i) {
      stored[static_cast<size_t>(tensor.hub_index(i))] = ours[static_cast<size_t>(tensor.first() + i)];
    }
  }
  return all;
}

double error_of(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size() || got.empty()) return HUGE_VAL;
  double error = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - expected[i]);
    if (!(difference <= error)) error = difference;
    largest = std::max(largest, std::abs(expected[i]));
  }
  return largest == 0 && error == 0 ? 0 : error / largest;
}

GoldenTokens::GoldenTokens(const Golden& golden, int64_t seq_len, int64_t vocab)
    : inputs_(golden.integers("input_ids")), labels_(golden.integers("labels")), seq_len_(seq_len), vocab_(vocab) {}

void GoldenTokens::sample(int64_t id, std::span<int32_t> tokens) const {
  const auto first = static_cast<size_t>(id * seq_len_), count = static_cast<size_t>(seq_len_);
  std::copy_n(inputs_.begin() + id * seq_len_, count, tokens.begin());
  tokens[count] = labels_[first + count - 1];
}

}  // namespace sluice::test
