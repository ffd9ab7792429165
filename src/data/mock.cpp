#include "data/mock.h"

#include "base/error.h"
#include "base/hash.h"

namespace sluice {

// The key is the tokens' own: the same seed draws weights elsewhere.
MockDataset::MockDataset(std::uint64_t seed, std::int64_t vocab_size, std::int64_t samples)
    : seed_(seed), random_(hash64("mock tokens", seed)), vocab_size_(vocab_size), samples_(samples) {
  if (vocab_size < 1 || vocab_size > std::numeric_limits<std::int32_t>::max() || samples < 1) {
    throw user_error("mock data of {} samples over a vocabulary of {}", samples, vocab_size)
        .advise("both must be at least 1, the vocabulary below 2^31");
  }
}

std::string MockDataset::identity() const {
  return fmt::format("random tokens below {} of seed {}", vocab_size_, seed_);
}

void MockDataset::sample(std::int64_t id, std::span<std::int32_t> tokens) const {
  require(id >= 0, "mock sample {}", id);
  const auto stream = static_cast<std::uint64_t>(id % samples_);
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<std::int32_t>(random_.below(static_cast<std::uint64_t>(vocab_size_), i, stream));
}

}  // namespace sluice
