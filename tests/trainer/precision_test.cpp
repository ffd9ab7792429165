// What a run computes in, and the state that its weights' type gives the optimizer, on the CPU as on a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "data/mock.h"
#include "support/training.h"
#include "trainer/op_profile.h"

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

// What each operation multiplies.
class FactorWatch final : public OpObserver {
 public:
  void after(const OpRecord& record) override { seen[std::string(record.name)].insert(record.cost.factors); }
  std::map<std::string, std::set<DType>> seen;
};

TEST(Precision, EachOperationCountsAsWhatItMultiplies) {
  const RunSpec spec = resolve(tiny_config({"--runtime.dtype=bf16", "--benchmark.balance=router"}), 1, Purpose::train);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  FactorWatch watch;
  run_session(spec, {.device = DeviceKind::cpu, .comm = {.timeout_s = 60}}, dataset, [&](Trainer& trainer) {
    const ObserverScope scope(trainer.context(), watch);
    trainer.step(0);
  });
  const std::set<DType> bf16{DType::bf16}, f32{DType::f32};
  for (const char* op :
       {"grouped_gemm", "grouped_gemm_weight", "attention_forward", "attention_backward", "head_loss"}) {
    EXPECT_EQ(watch.seen[op], bf16) << op;
  }
  EXPECT_EQ(watch.seen["gemm"], (std::set{DType::f32, DType::bf16})) << "gradients of a router's logits are f32";
  for (const char* op : {"rmsnorm_forward", "swiglu_backward", "rope", "adamw", "softmax_topk_forward"}) {
    EXPECT_EQ(watch.seen[op], f32) << op;
  }
}

}  // namespace
}  // namespace sluice::test
