#include "train/make_dataset.h"

#include <limits>

#include "base/hash.h"
#include "data/bytes.h"
#include "data/mock.h"

namespace sluice {
namespace {

constexpr int64_t unlimited = std::numeric_limits<int64_t>::max();

TextSplit split_of(config::Split split) {
  switch (split) {
    case config::Split::train:
      return TextSplit::train;
    case config::Split::validation:
      return TextSplit::validation;
    case config::Split::all:
      break;
  }
  return TextSplit::all;
}

}  // namespace

std::unique_ptr<Dataset> make_dataset(const Config& config, const config::Dataset& data, const std::string& section,
                                      const RunSpec& spec) {
  const auto seed = static_cast<uint64_t>(config.seed);
  std::unique_ptr<Dataset> dataset;
  switch (data.target) {
    case config::DatasetKind::none:
      return nullptr;
    case config::DatasetKind::mock:
      dataset = std::make_unique<MockDataset>(hash64("mock", seed), data.vocab_size.value_or(spec.model.vocab_size),
                                              data.num_samples.value_or(unlimited));
      break;
    case config::DatasetKind::bytes:
      dataset = std::make_unique<ByteDataset>(load_text(data.path.value_or("")),
                                              ByteOptions{.seq_len = spec.seq_len,
                                                          .split = split_of(data.split),
                                                          .holdout_every = data.holdout_every,
                                                          .samples = data.num_samples.value_or(unlimited),
                                                          .seed = hash64("bytes", seed)});
      break;
  }
  if (dataset->vocab_size() > spec.model.vocab_size) {
    throw user_error("{} has tokens up to {}, the model's vocabulary is {}", section, dataset->vocab_size() - 1,
                     spec.model.vocab_size)
        .at(config.origin(section + "._target_").place())
        .advise(fmt::format("set model.config.vocab_size to at least {}", dataset->vocab_size()));
  }
  return dataset;
}

}  // namespace sluice
