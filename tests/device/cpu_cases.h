// Cases for the fast path on a CPU: programs that cpu_test.cpp and cpu_rows_test.cpp hold to ref, on every instruction
// set and pool.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "support/test_context.h"

namespace sluice::test {

struct CpuCase {
  std::string name;
  int64_t reduction;  // terms of the longest sum
  std::function<std::vector<Tensor>(TestContext&)> run;
  friend std::ostream& operator<<(std::ostream& out, const CpuCase& c) { return out << c.name; }
};

// Rows with gaps between them.
inline Tensor strided_random(TestContext& tc, Shape shape, uint64_t seed, double scale = 1) {
  const Tensor t = tc.strided(shape, tc.dtype());
  randomize(t, seed, scale);
  return t;
}

inline Tensor strided_accumulators(TestContext& tc, Shape shape, uint64_t seed, double scale = 1) {
  const Tensor t = tc.strided(shape, tc.accumulator());
  randomize(t, seed, scale);
  return t;
}

// Numbers in [0, bound), a share of them replaced by -1.
Tensor indices(TestContext& tc, Shape shape, uint64_t seed, int64_t bound, double share_of_holes = 0);

// Operations on rows, heads and streams of numbers, whose storage type is the context's.
std::vector<CpuCase> row_cases();
// Biases, sinks and latent heads, likewise.
std::vector<CpuCase> bias_and_head_cases();
// Routers, which know the accumulator type alone.
std::vector<CpuCase> router_cases();

}  // namespace sluice::test
