#include "trainer/make_dataset.h"

#include <algorithm>
#include <limits>

#include "base/hash.h"
#include "base/log.h"
#include "data/bytes.h"
#include "data/mock.h"

namespace sluice {
namespace {

constexpr int64_t unlimited = std::numeric_limits<int64_t>::max();

// How many different sequences there are to be.
int64_t sequences_of(const config::Dataset& data, const RunSpec& spec) {
  if (!data.num_samples) return unlimited;
  const int64_t each = data.num_samples_are == config::SampleUnit::batches ? spec.local_batch * spec.sampling.dp : 1;
  return *data.num_samples > unlimited / each ? unlimited : *data.num_samples * each;
}

// A default of NeMo's may be larger than the model's vocabulary, where its own run would fail.
int64_t mock_vocabulary(const Config& config, const config::Dataset& data, const std::string& section,
                        const RunSpec& spec) {
  const int64_t all = spec.model.vocab_size;
  const int64_t tokens = data.vocab_size.value_or(all);
  return config.is_set(section + ".vocab_size") ? tokens : std::min(tokens, all);
}

}  // namespace

std::unique_ptr<Dataset> make_dataset(const Config& config, const config::Dataset& data, const std::string& section,
                                      const RunSpec& spec) {
  const auto seed = static_cast<uint64_t>(config.seed);
  const int64_t samples = sequences_of(data, spec);
  std::unique_ptr<Dataset> dataset;
  std::string found;  // of text
  switch (data.target) {
    case config::DatasetKind::none:
      return nullptr;
    case config::DatasetKind::mock:
      dataset =
          std::make_unique<MockDataset>(hash64("mock", seed), mock_vocabulary(config, data, section, spec), samples);
      break;
    case config::DatasetKind::bytes: {
      const std::shared_ptr<const ByteText> text = load_text(data.path.value_or(""));
      found = describe(*text);
      dataset = std::make_unique<ByteDataset>(text, ByteOptions{.seq_len = spec.seq_len,
                                                                .split = data.split,
                                                                .holdout_every = data.holdout_every,
                                                                .samples = samples,
                                                                .seed = hash64("bytes", seed)});
      break;
    }
  }
  if (dataset->vocab_size() > spec.model.vocab_size) {
    throw user_error("{} has tokens up to {}, the model's vocabulary is {}", section, dataset->vocab_size() - 1,
                     spec.model.vocab_size)
        .at(config.origin(section + "._target_").place())
        .advise(fmt::format("set model.config.vocab_size to at least {}", dataset->vocab_size()));
  }
  if (!found.empty()) log::info("{} {}", section, found);
  return dataset;
}

}  // namespace sluice
