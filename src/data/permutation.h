// A random order without state: index -> position is a bijection of {0, ..., size - 1} for each (seed, epoch).
#pragma once

#include <cstdint>

#include "base/philox.h"

namespace sluice {

class Permutation {
 public:
  Permutation(std::uint64_t seed, std::int64_t size);

  std::int64_t operator()(std::int64_t epoch, std::int64_t index) const;

 private:
  Philox random_;
  std::uint64_t size_;
  std::uint64_t rows_;
  std::uint64_t columns_;
};

}  // namespace sluice
