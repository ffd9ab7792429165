// What a run computes in, and the state that its weights' type gives the optimizer, on the CPU as on a GPU.
#include "trainer/precision.h"

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

Config published(const std::vector<std::string>& overrides) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/qwen3_moe_30b_8.yaml");
  config::apply_overrides(config, overrides);
  return config;
}

// Whether the processor has the instruction is told, so that both machines are tested on each.
TEST(Precision, OfAPublishedRowIsThePublishedOneWhereTheProcessorMultipliesIt) {
  struct Case {
    std::vector<std::string> overrides;
    std::optional<Scale> scale;
    bool has_instruction;
    DType expected;
  };
  const std::vector<Case> cases{
      {{}, Scale::laptop, true, DType::bf16},
      {{}, std::nullopt, true, DType::bf16},
      {{}, Scale::laptop, false, DType::f32},
      {{}, Scale::tiny, true, DType::f32},
      {{"--runtime.dtype=fp32"}, Scale::laptop, true, DType::f32},
      {{"--runtime.dtype=f64"}, Scale::laptop, true, DType::f64},
      {{"--runtime.dtype=bf16"}, Scale::tiny, false, DType::bf16},
      {{"--runtime.device=ref"}, Scale::laptop, true, DType::f32},
      {{"--model.torch_dtype=bf16"}, Scale::tiny, false, DType::bf16},
      {{"--benchmark.published.precision=FP8"}, Scale::laptop, true, DType::f32},
      {{"--benchmark.published.gpus=null"}, Scale::laptop, true, DType::f32},
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    Config config = published(cases[i].overrides);
    take_published_precision(config, cases[i].scale, cases[i].has_instruction);
    EXPECT_EQ(config.runtime.dtype, cases[i].expected) << "case " << i;
  }
}

}  // namespace
}  // namespace sluice::test
