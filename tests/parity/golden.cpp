#include "golden.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "base/error.h"

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

Golden::Golden(const std::string& name)
    : directory_(goldens_directory() / name),
      weights_(directory_ / "weights.safetensors"),
      f64_(directory_ / "golden_f64.safetensors") {}

std::vector<double> Golden::values_of(const safetensors::Model& model, const std::string& tensor) {
  const safetensors::StoredTensor& stored = model.at(tensor);
  std::vector<double> values(safetensors::bytes_of(stored.spec) / safetensors::size_of(stored.spec.type));
  safetensors::read_elements(stored, 0, tensor_of(values.data(), {std::ssize(values)}));
  return values;
}

std::vector<int32_t> Golden::integers(const std::string& tensor) const {
  const safetensors::StoredTensor& stored = f64_.at(tensor);
  require(stored.spec.type == safetensors::Type::i32, "{} is not of integers", tensor);
  std::vector<int32_t> values(stored.bytes.size() / sizeof(int32_t));
  std::memcpy(values.data(), stored.bytes.data(), stored.bytes.size());
  return values;
}

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

GoldenTokens::GoldenTokens(const Golden& golden, int64_t seq_len, int64_t vocab)
    : inputs_(golden.integers("input_ids")), labels_(golden.integers("labels")), seq_len_(seq_len), vocab_(vocab) {}

void GoldenTokens::sample(int64_t id, std::span<int32_t> tokens) const {
  const auto first = static_cast<size_t>(id * seq_len_), count = static_cast<size_t>(seq_len_);
  std::copy_n(inputs_.begin() + id * seq_len_, count, tokens.begin());
  tokens[count] = labels_[first + count - 1];
}

}  // namespace sluice::test
