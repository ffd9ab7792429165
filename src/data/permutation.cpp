#include "data/permutation.h"

#include <cmath>

#include "base/error.h"
#include "base/hash.h"

namespace sluice {
namespace {

std::uint64_t checked(std::int64_t size) {
  require(size >= 1 && size <= std::int64_t{1} << 52, "a permutation of {} samples", size);
  return static_cast<std::uint64_t>(size);
}

}  // namespace

Permutation::Permutation(std::uint64_t seed, std::int64_t size)
    : random_(hash64("sample order", seed)),
      size_(checked(size)),
      rows_(static_cast<std::uint64_t>(std::ceil(std::sqrt(static_cast<double>(size))))),
      columns_((size_ + rows_ - 1) / rows_) {}

// A Feistel network on the pairs (row, column): each round adds to one half a random function of the other, which can
// be undone. Pairs beyond the size, fewer than a row's, go round again until they fall inside: still a bijection.
std::int64_t Permutation::operator()(std::int64_t epoch, std::int64_t index) const {
  require(epoch >= 0 && index >= 0 && static_cast<std::uint64_t>(index) < size_, "sample {} of {} in epoch {}", index,
          size_, epoch);
  constexpr std::uint64_t rounds = 6;
  auto at = static_cast<std::uint64_t>(index);
  do {
    std::uint64_t row = at / columns_, column = at % columns_;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::uint64_t stream = static_cast<std::uint64_t>(epoch) * 2 * rounds + 2 * round;
      row = (row + random_.below(rows_, column, stream)) % rows_;
      column = (column + random_.below(columns_, row, stream + 1)) % columns_;
    }
    at = row * columns_ + column;
  } while (at >= size_);
  return static_cast<std::int64_t>(at);
}

}  // namespace sluice
