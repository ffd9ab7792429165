// Random tokens, each a pure function of (seed, sample id, position), uniform over the vocabulary.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "base/philox.h"
#include "data/dataset.h"

namespace sluice {

class MockDataset : public Dataset {
 public:
  // After `samples` samples they repeat.
  MockDataset(std::uint64_t seed, std::int64_t vocab_size,
              std::int64_t samples = std::numeric_limits<std::int64_t>::max());

  void sample(std::int64_t id, std::span<std::int32_t> tokens) const override;
  std::int64_t size() const override { return samples_; }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::string identity() const override;

 private:
  std::uint64_t seed_;
  Philox random_;
  std::int64_t vocab_size_;
  std::int64_t samples_;
};

}  // namespace sluice
