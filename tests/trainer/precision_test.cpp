// What a run computes in, and the state that its weights' type gives the optimizer, on the CPU as on a GPU.
#include <gtest/gtest.h>

#include <cmath>

#include "data/mock.h"
#include "support/training.h"

namespace sluice::test {
namespace {

TEST(Precision, IsWhatTheConfigurationSaysOnTheCpu) {
  for (const Purpose purpose : {Purpose::run, Purpose::train, Purpose::plan}) {
    EXPECT_EQ(resolve(tiny_config({"--runtime.dtype=bf16"}), 1, purpose).dtype, DType::bf16);
    EXPECT_EQ(resolve(tiny_config({"--runtime.dtype=fp32"}), 1, purpose).dtype, DType::f32);
  }
}

// Bytes of optimizer state that a run has for each weight.
double state_bytes(const std::string& dtype, const std::string& state) {
  const RunSpec spec =
      resolve(tiny_config({"--runtime.dtype=" + dtype, "--optimizer.state_dtype=" + state}), 1, Purpose::train);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  double bytes = 0;
  run_session(spec, {.device = DeviceKind::cpu, .comm = {.timeout_s = 60}}, dataset, [&](Trainer& trainer) {
    double loss = 0;
    for (int step = 0; step < 3; ++step) loss = trainer.step(step).loss;
    EXPECT_TRUE(std::isfinite(loss)) << dtype << " " << state;
    bytes = static_cast<double>(trainer.ledger().at_peak(MemoryKind::optimizer));
  });
  return bytes / static_cast<double>(param_count(spec.model).total);
}

TEST(Precision, Bf16WeightsHaveMastersWhereTheStateIsFp32) {
  constexpr double padding = 0.3;  // of arenas, over few weights
  EXPECT_NEAR(state_bytes("fp32", "fp32"), 8, padding) << "two moments";
  EXPECT_NEAR(state_bytes("bf16", "fp32"), 12, padding) << "two moments and a master";
  EXPECT_NEAR(state_bytes("bf16", "bf16"), 4, padding) << "two moments, no master";
  EXPECT_NEAR(state_bytes("bf16", "weights"), 4, padding) << "two moments as the weights";
  EXPECT_NEAR(state_bytes("fp32", "weights"), 8, padding) << "two moments as the weights";
}

}  // namespace
}  // namespace sluice::test
