// The one-GPU proxies of the published rows: each is its row's work on one rank, fits the GPU its comment names, and
// runs.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <memory>

#include "config/load.h"
#include "model/family.h"
#include "plan/plan.h"
#include "trainer/scale_config.h"
#include "training/benchmark.h"

namespace sluice {
namespace {

struct Proxy {
  const char* file;
  const char* row;
  int64_t layers;        // as many as a rank of the row has
  int64_t dense_layers;  // of them
  int64_t rows;          // an expert's, in a micro-batch
  double peak_gib;       // planned, as the file's comment says
  double without_optimizer_gib;
  int64_t h100_layers;  // as many as it holds
  bool recomputes_like_the_row = true;
  friend std::ostream& operator<<(std::ostream& out, const Proxy& proxy) { return out << proxy.file; }
};

Config load_example(const std::string& name, const std::vector<std::string>& overrides = {}) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/" + name + ".yaml");
  config::apply_overrides(config, overrides);
  return config;
}

RunSpec spec_of(const Config& config) {
  RunSpec spec = resolve(config, ranks_of(config), Purpose::plan);
  spec.dtype = DType::bf16;
  return spec;
}

double peak_gib(const Proxy& proxy, const std::string& gpu, const std::vector<std::string>& overrides = {}) {
  const Plan plan = make_plan(spec_of(load_example(proxy.file, overrides)), find_profile(gpu, 1, 1));
  const double gib = static_cast<double>(plan.peak_bytes()) / static_cast<double>(size_t{1} << 30);
  return plan.fits() ? gib : -gib;
}

class Proxies : public testing::TestWithParam<Proxy> {};

TEST_P(Proxies, AreTheWorkOfOneRankOfTheRow) {
  const RunSpec proxy = spec_of(load_example(GetParam().file)), row = spec_of(load_example(GetParam().row));
  EXPECT_EQ(proxy.mesh.world, 1);
  EXPECT_EQ(proxy.local_shard, row.mesh.ep);
  EXPECT_EQ(proxy.seq_len, row.seq_len);
  EXPECT_EQ(proxy.sampling.micro_batch, row.sampling.micro_batch);
  EXPECT_EQ(proxy.sampling.micro_batches(), row.sampling.micro_batches());
  EXPECT_EQ(proxy.gate.kind, row.gate.kind);
  EXPECT_EQ(proxy.router, RouterKind::forced);
  EXPECT_EQ(proxy.optimizer.state_dtype, row.optimizer.state_dtype);
  if (GetParam().recomputes_like_the_row) {
    EXPECT_EQ(proxy.recompute, row.recompute);
  }
  ModelConfig model = row.model;
  model.num_layers = GetParam().layers;
  model.dense_layers = GetParam().dense_layers;
  EXPECT_EQ(proxy.model, model) << "full width: only the number of layers differs";
  EXPECT_EQ(GetParam().layers, (row.model.num_layers + row.mesh.pp - 1) / row.mesh.pp) << "those of a rank";
  const int64_t tokens = proxy.sampling.micro_batch * proxy.seq_len;
  EXPECT_EQ(tokens * model.top_k * proxy.local_shard / model.num_experts, GetParam().rows);
  // What an expert of the row gets from all its peers.
  EXPECT_EQ(tokens * row.mesh.ep * model.top_k / model.num_experts, GetParam().rows);
}

TEST_P(Proxies, FitAsTheFileSays) {
  const Proxy& proxy = GetParam();
  const auto layers = [](int64_t n) { return "--model.config.num_hidden_layers=" + std::to_string(n); };
  // Half of the last digit that is written, and the sentinels of builds that check memory.
  const auto rounding = [](double gib) { return (gib < 100 ? 0.05 : 0.5) + 0.001; };
  EXPECT_NEAR(peak_gib(proxy, "h200"), proxy.peak_gib, rounding(proxy.peak_gib));
  EXPECT_NEAR(peak_gib(proxy, "h200", {"--benchmark.optimizer=false"}), proxy.without_optimizer_gib,
              rounding(proxy.without_optimizer_gib));
  EXPECT_GT(peak_gib(proxy, "h100", {layers(proxy.h100_layers)}), 0);
  if (proxy.h100_layers < proxy.layers) {
    const double more = peak_gib(proxy, "h100", {layers(proxy.h100_layers + 1)});
    EXPECT_TRUE(more < 0 || more > 78) << more;
  }
}

TEST_P(Proxies, RunSmall) {
  const Config config = load_example(GetParam().file, {"--step_scheduler.max_steps=3", "--benchmark.warmup_steps=1",
                                                       "--benchmark.balance=published", "--runtime.threads=2"});
  const Config small = scale_config(config, Scale::tiny, 1).config;
  const RunSpec spec = resolve(small, 1);
  EXPECT_EQ(spec.local_shard, spec_of(config).local_shard);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> null(std::fopen("/dev/null", "w"), std::fclose);
  Progress progress(null.get(), 0, "");
  MachineInfo machine;
  machine.peak_gflops = machine.bandwidth_gbs = 1;
  const BenchmarkRow row =
      run_benchmark({.config = GetParam().file, .scale = "tiny", .settings = small}, spec, machine, progress);
  ASSERT_EQ(row.losses.size(), 3U);
  // Tokens are drawn at random, each step others.
  EXPECT_NEAR(row.losses[0], std::log(static_cast<double>(spec.model.vocab_size)), 0.2);
  EXPECT_NE(row.losses[2], row.losses[0]);
  EXPECT_DOUBLE_EQ(row.gflop_per_token * static_cast<double>(spec.seq_len) * 1e9,
                   model_flops_per_sequence(spec.model, spec.seq_len))
      << "a token's work is the model's: all its k experts";
  EXPECT_DOUBLE_EQ(row.tokens_per_s_per_rank() * row.median_seconds(), static_cast<double>(spec.tokens_per_step()));
  EXPECT_EQ(row.max_memory_bytes, row.planned_memory_bytes);
  EXPECT_GE(row.load_factor, 1);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Proxies,
    testing::Values(Proxy{"deepseek_v3_1024_1gpu", "deepseek_v3_1024", 16, 1, 8192, 85.1, 53.3, 14},
                    Proxy{"deepseek_v3_1gpu", "deepseek_v3_256", 16, 1, 8192, 85.1, 53.3, 14},
                    Proxy{"kimi_k2_1gpu", "kimi_k2_256", 8, 1, 2730, 74.7, 46.5, 8},
                    Proxy{"qwen3_moe_30b_1gpu", "qwen3_moe_30b_8", 48, 0, 8192, 132, 113, 26, false},
                    Proxy{"gpt_oss_20b_1gpu", "gpt_oss_20b_8", 24, 0, 8192, 42.7, 27.1, 24},
                    Proxy{"gpt_oss_120b_1gpu", "gpt_oss_120b_64", 36, 0, 16384, 75.9, 61.3, 36}),
    [](const auto& instance) { return std::string(instance.param.file); });

}  // namespace
}  // namespace sluice
