// Cases for the fast path on a CPU: programs that cpu_test.cpp holds to ref, on every instruction set and pool.
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

// Of what GPT-OSS and DeepSeek have beyond Qwen 3: biases, sinks, latent heads, sigmoid routers.
std::vector<CpuCase> bias_and_head_cases();

}  // namespace sluice::test
