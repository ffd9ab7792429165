// Mutants without effect that are right to have none, and why.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/mutation.h"

namespace sluice::test {

// Of a learned router with renormalised weights.
inline std::vector<Equivalent> router_equivalents() {
  const char* reason = "weights are renormalised, so their gradient depends on ratios of probabilities alone";
  return {{"softmax_topk_forward", "probs", "negate", reason}, {"softmax_topk_forward", "probs", "scale 1.01", reason}};
}

// An output nobody reads: "rmsnorm_forward.rstd".
struct Unused {
  std::string output;
  std::string reason;
};

// Where q, k and normed inputs are made again, or everything is.
inline std::vector<Unused> unused_when_rebuilding() {
  const char* reason = "backward reads the statistics that the rebuild wrote";
  return {{"rmsnorm_forward.rstd", reason},
          {"residual_rmsnorm_forward.rstd", reason},
          {"attention_forward.lse", reason},
          {"attention_sink.lse", reason}};
}

// With a gate that has no parameters.
inline std::vector<Unused> unused_when_forced() {
  return {{"swiglu_backward.dweight", "weights of a forced gate have no gradient"}};
}

// Of a router with a selection bias, where no step follows.
inline std::vector<Unused> unused_load() {
  const char* reason = "the step of the selection bias reads it";
  return {{"expert_load.load", reason}, {"expert_load.experts", reason}};
}

// Fails for every unused output the report found that is not known.
inline void expect_known(const MutationReport& report, const std::vector<Unused>& known) {
  for (const std::string& line : report.unused) {
    EXPECT_TRUE(std::any_of(known.begin(), known.end(), [&](const Unused& u) {
      return line.find(' ' + u.output + ':') != std::string::npos;
    })) << line;
  }
}

}  // namespace sluice::test
