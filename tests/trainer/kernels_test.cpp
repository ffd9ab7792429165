// What whole training runs say of the kernels that carried them out, by device, storage type and layout.
#include <gtest/gtest.h>

#include "config/load.h"
#include "data/mock.h"
#include "device/cpu/peak.h"
#include "support/training.h"

namespace sluice::test {
namespace {

// One step on every rank; what rank 0 says, by part.
std::map<std::string, std::string> kernels_of(const std::vector<std::string>& overrides, int ranks,
                                              const LaunchOptions& options, const std::string& family = "qwen3_moe") {
  Config config = tiny_config({"--dataset.seq_len=8", "--step_scheduler.global_batch_size=2"}, family);
  config::apply_overrides(config, overrides);
  const RunSpec spec = resolve(config, ranks);
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  std::map<std::string, std::string> kernels;
  run_session(spec, options, dataset, [&](Trainer& trainer) {
    trainer.step(0);
    if (trainer.mesh().world.rank() != 0) return;
    for (const KernelUse& use : trainer.context().backend().kernels().uses()) {
      kernels.emplace(use.part, use.ours);
    }
  });
  return kernels;
}

using Kernels = std::map<std::string, std::string>;

TEST(Kernels, OnTheCpuTheStorageTypeDecides) {
  const std::string fast = "own " + cpu::instruction_set(), plain = "reference loops";
  EXPECT_EQ(kernels_of({"--runtime.dtype=f32"}, 1, {.device = DeviceKind::cpu, .threads = 2}),
            (Kernels{{"attention", fast + ": causal"},
                     {"linear", fast},
                     {"rms_norm", fast},
                     {"experts", fast},
                     {"dispatcher", "no exchange at EP 1"}}));
  EXPECT_EQ(kernels_of({"--runtime.dtype=f64"}, 1, {.device = DeviceKind::cpu, .threads = 2}),
            (Kernels{{"attention", plain + ": causal"},
                     {"linear", plain},
                     {"rms_norm", plain},
                     {"experts", plain},
                     {"dispatcher", "no exchange at EP 1"}}));
  EXPECT_EQ(kernels_of({}, 1, {.device = DeviceKind::ref}, "gpt_oss").at("attention"),
            plain + ": causal, sliding window, sinks");
}

TEST(Kernels, TokensThatTravelSayHow) {
  const std::vector<std::string> ep2{"--distributed.ep_size=2"};
  EXPECT_EQ(kernels_of(ep2, 2, {.device = DeviceKind::ref}).at("dispatcher"), "de-duplicated all-to-all, threads");
  EXPECT_EQ(kernels_of({}, 2, {.device = DeviceKind::ref}).at("dispatcher"), "no exchange at EP 1")
      << "ranks alone exchange no tokens";
  EXPECT_EQ(kernels_of(ep2, 2, {.hardware = emulated_gpu().hardware}).at("dispatcher"),
            "de-duplicated all-to-all, threads on one GPU");
}

TEST(Kernels, OnAGpuTheLibrariesOrOurOwn) {
  const LaunchOptions gpu{.hardware = emulated_gpu().hardware};
  EXPECT_EQ(kernels_of({"--runtime.dtype=f32"}, 1, gpu), (Kernels{{"attention", "own CUDA: causal"},
                                                                  {"linear", "own CUDA"},
                                                                  {"rms_norm", "own CUDA"},
                                                                  {"experts", "own CUDA per expert"},
                                                                  {"dispatcher", "no exchange at EP 1"}}));
  const Kernels bf16 = kernels_of({"--runtime.dtype=bf16", "--runtime.device=cuda"}, 1, gpu);
  EXPECT_EQ(bf16.at("experts"), "CUTLASS grouped");
  EXPECT_EQ(bf16.at("attention"), "own CUDA: causal") << "cuDNN does not take heads of 8 columns";
}

TEST(Kernels, ADenseModelHasNoExperts) {
  const Kernels kernels =
      kernels_of({"--model.config.first_k_dense_replace=4"}, 1, {.device = DeviceKind::ref}, "kimi_k2");
  EXPECT_FALSE(kernels.contains("experts"));
  EXPECT_FALSE(kernels.contains("dispatcher"));
  EXPECT_EQ(kernels.size(), 3U);
}

}  // namespace
}  // namespace sluice::test
