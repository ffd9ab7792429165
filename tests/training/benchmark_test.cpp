#include "training/benchmark.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <thread>

#include "base/text.h"
#include "config/load.h"
#include "device/cpu/bf16_dot.h"
#include "emulation/profiler.h"
#include "support/training.h"
#include "trainer/scale_config.h"
#include "training/records.h"
#include "training/yardstick.h"

namespace sluice {
namespace {

struct Null {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::fopen("/dev/null", "w"), std::fclose};
  Progress progress{file.get(), 0, ""};
};

// Slower than any measurement, also one of a sanitized build beside other work.
constexpr double kSlowGflops = 1e-6;

MachineInfo slow_machine() {
  MachineInfo machine;
  machine.peak_gflops = kSlowGflops;
  machine.bandwidth_gbs = 1;
  return machine;
}

Config tiny_row(int ranks, const std::vector<std::string>& overrides) {
  Config config = config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/qwen3_moe_30b_8.yaml");
  config::apply_overrides(config, overrides);
  return scale_config(config, Scale::tiny, ranks).config;
}

BenchmarkRow run(int ranks, const std::vector<std::string>& overrides, bool ops = false,
                 const Hardware& hardware = {}) {
  const Config scaled = tiny_row(ranks, overrides);
  Null null;
  MachineInfo machine = slow_machine();
  return run_benchmark(
      {.config = "row.yaml", .scale = "tiny", .settings = scaled, .profile_ops = ops, .hardware = hardware},
      resolve(scaled, ranks), machine, null.progress);
}

const std::vector<std::string> short_run{"--step_scheduler.max_steps", "4", "--runtime.threads", "2"};

TEST(Benchmark, TimesTheStepsAfterTheWarmUp) {
  const BenchmarkRow row = run(1, short_run, true);
  EXPECT_EQ(row.losses.size(), 4U);
  EXPECT_EQ(row.step_seconds.size(), 2U);
  for (const double loss : row.losses) EXPECT_NEAR(loss, std::log(256), 0.2);
  for (const double seconds : row.step_seconds) EXPECT_GT(seconds, 0);
  EXPECT_EQ(row.row, "R4");
  EXPECT_EQ(row.balance, "published");
  EXPECT_EQ(row.optimizer_state_dtype, "bf16");
  EXPECT_EQ(row.recompute, "full");
  ASSERT_EQ(row.kernels.size(), 5U);
  EXPECT_EQ(row.kernels.front().part, "attention");
  EXPECT_EQ(row.kernels.back().ours, "no exchange at EP 1");
  EXPECT_DOUBLE_EQ(row.load_factor, 1);
  EXPECT_EQ(row.max_memory_bytes, row.planned_memory_bytes);
  EXPECT_TRUE(row.grown.empty());
  EXPECT_GT(row.peak_tflops, kSlowGflops * 1e-3) << "the second measurement is better";
  EXPECT_GT(row.mfu(), 0);
  ASSERT_TRUE(row.ops);
  EXPECT_GT(row.ops->ops.size(), 10U);
  EXPECT_LE(row.ops->seconds_in_ops(), row.ops->step_seconds);
}

// What progress said of the last step follows from the row's own denominator.
TEST(Benchmark, ProgressAndTableHaveOneDenominator) {
  std::vector<std::string> overrides = short_run;
  const double tflops = run(1, short_run).model_tflops_per_rank();
  overrides.insert(overrides.end(), {"--benchmark.peak_tflops", std::to_string(3 * tflops)});
  const Config config = tiny_row(1, overrides);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::tmpfile(), std::fclose);
  MachineInfo machine = slow_machine();
  BenchmarkRow row;
  {
    Progress progress(file.get(), 0, "");
    row = run_benchmark({.config = "row.yaml", .scale = "tiny", .settings = config}, resolve(config, 1), machine,
                        progress);
  }
  ASSERT_EQ(std::fseek(file.get(), 0, SEEK_SET), 0);
  std::string text(1 << 14, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  row.step_seconds = {row.step_seconds.back()};
  const std::string expected = "MFU " + format_share(row.mfu(), 1, "above peak");
  EXPECT_NE(text.substr(text.rfind("MFU")).find(expected), std::string::npos) << expected << " is not in " << text;
}

TEST(Benchmark, TheMachineIsMeasuredBeforeBetweenAndAfter) {
  const Config config = tiny_row(1, short_run);
  Null null;
  MachineInfo machine = slow_machine();
  machine.peaks_gflops = {machine.peak_gflops};
  run_benchmark({.config = "row.yaml", .scale = "tiny", .settings = config}, resolve(config, 1), machine,
                null.progress);
  EXPECT_GE(machine.peaks_gflops.size(), 3U);
  EXPECT_EQ(machine.peak_gflops, *std::max_element(machine.peaks_gflops.begin(), machine.peaks_gflops.end()));
  const auto json = nlohmann::json::parse(report_json({.machine = machine}));
  EXPECT_EQ(json.at("machine").at("peak_measurements_gflops").size(), machine.peaks_gflops.size());
}

TEST(Yardstick, AStepFasterThanThePeakMeasuresAgain) {
  const Config config = tiny_row(1, short_run);
  const RunSpec spec = resolve(config, 1);
  MachineInfo machine = slow_machine();
  Yardstick yardstick(spec, launch_options(config), {}, machine);
  EXPECT_GT(yardstick.mfu(1), 1);
  yardstick.check(1, Yardstick::Run::goes_on);
  EXPECT_LE(yardstick.mfu(1), 1);
  EXPECT_GT(machine.peak_gflops, kSlowGflops);
  EXPECT_DOUBLE_EQ(yardstick.peak_flops(), machine.peak_gflops * 1e9);
  // No machine is so fast: it gives up.
  yardstick.check(1e-12, Yardstick::Run::has_ended);
  EXPECT_LE(machine.peaks_gflops.size(), 3U);

  MachineInfo other = slow_machine();
  Yardstick stated(spec, launch_options(config), 989.0, other);
  stated.check(1e-12, Yardstick::Run::has_ended);
  EXPECT_TRUE(other.peaks_gflops.empty()) << "what is stated needs no measurement";
  EXPECT_DOUBLE_EQ(stated.peak_flops(), 989e12);
}

// The machine of the run decides, not the one that the test runs on.
TEST(Yardstick, ARunIsHeldAgainstThePeakOfItsPrecision) {
  MachineInfo with_instruction, without;
  with_instruction.peak_gflops = without.peak_gflops = 1;
  with_instruction.bf16_peak_gflops = 2;
  with_instruction.bandwidth_gbs = without.bandwidth_gbs = 1e9;  // arithmetic alone takes time
  const auto yardstick = [](const char* dtype, MachineInfo& machine) {
    std::vector<std::string> overrides = short_run;
    overrides.insert(overrides.end(), {"--runtime.dtype", dtype});
    const Config config = tiny_row(2, overrides);
    return Yardstick(resolve(config, 2), launch_options(config), {}, machine);
  };
  const Yardstick fp32 = yardstick("fp32", with_instruction), bf16 = yardstick("bf16", with_instruction);
  EXPECT_DOUBLE_EQ(fp32.peak_flops(), 0.5e9) << "of a rank";
  EXPECT_DOUBLE_EQ(bf16.peak_flops(), 1e9);
  EXPECT_DOUBLE_EQ(bf16.mfu(1), fp32.mfu(1) / 2);
  EXPECT_EQ(bf16.forecast().roof.peak_type(bf16.dtype()), DType::bf16);
  // What is no product of bf16 with bf16 takes as long as in fp32.
  const double share = bf16.forecast().roofline_seconds / fp32.forecast().roofline_seconds;
  EXPECT_GT(share, 0.5);
  EXPECT_LT(share, 0.75);
  const Yardstick by_fma = yardstick("bf16", without);
  EXPECT_DOUBLE_EQ(by_fma.peak_flops(), 0.5e9);
  EXPECT_EQ(by_fma.forecast().roof.peak_type(by_fma.dtype()), DType::f32);
  EXPECT_NEAR(by_fma.forecast().roofline_seconds, fp32.forecast().roofline_seconds,
              1e-4 * fp32.forecast().roofline_seconds)
      << "alike but for the optimizer's state";
}

TEST(Benchmark, Bf16RunsOnTheCpuWithinItsPlan) {
  std::vector<std::string> overrides = short_run;
  overrides.insert(overrides.end(), {"--runtime.dtype", "bf16"});
  const BenchmarkRow row = run(1, overrides);
  EXPECT_EQ(row.precision, "bf16");
  EXPECT_EQ(row.peak_precision, cpu::has_bf16_dot() ? "bf16" : "fp32");
  for (const double loss : row.losses) EXPECT_NEAR(loss, std::log(256), 0.2);
  EXPECT_EQ(row.max_memory_bytes, row.planned_memory_bytes);
  EXPECT_TRUE(row.grown.empty()) << describe(row.grown);
}

TEST(Benchmark, GrowthIsSummedUp) {
  EXPECT_EQ(describe(std::vector<RankGrowth>{}), "");
  EXPECT_EQ(describe({{3, {"scratch", 1, 2048}}}), "rank 3's scratch by 2.00 KiB");
  EXPECT_EQ(describe({{0, {"scratch", 1, 1024}}, {3, {"chunk 0 activations 1", 2, 4096}}, {3, {"scratch", 1, 1024}}}),
            "3 arenas of 2 ranks by 6.00 KiB together, the most rank 3's chunk 0 activations 1 by 4.00 KiB");
  BenchmarkRow row;
  row.step_seconds = {1};
  row.grown = {{3, {"scratch", 1, 2048}}};
  const auto json =
      nlohmann::json::parse(report_json({.machine = slow_machine(), .rows = {row}})).at("rows").at(0).at("grown");
  EXPECT_EQ(json.at(0).at("rank"), 3);
  EXPECT_EQ(json.at(0).at("arena"), "scratch");
  EXPECT_EQ(json.at(0).at("bytes"), 2048);
}

TEST(Benchmark, TheProfiledStepIsPlannedToo) {
  const BenchmarkRow row = run(
      2, {"--step_scheduler.max_steps", "3", "--runtime.threads", "2", "--model.backend.fake_gate_noise", "0.5"}, true);
  EXPECT_EQ(row.layout.ep, 2);
  EXPECT_TRUE(row.grown.empty()) << describe(row.grown);
}

TEST(Benchmark, NoShareAboveOneIsPrinted) {
  BenchmarkRow row;
  row.layout = {.ranks = 1, .gbs = 1, .seq_len = 1000};
  row.step_seconds = {1};
  row.gflop_per_token = 1;
  row.peak_tflops = 2;
  row.roofline_seconds = 0.5;
  EXPECT_EQ(missing_mfu_note(row), "");
  EXPECT_EQ(roofline_note(row), "50.0 % of the speed this step's operations allow at best (500 ms)");
  row.peak_tflops = 0.5;
  row.roofline_seconds = 2;
  EXPECT_NE(missing_mfu_note(row).find("1000.0 GFLOP/s, more than the peak of 500.0"), std::string::npos);
  EXPECT_EQ(roofline_note(row).find('%'), std::string::npos) << roofline_note(row);
}

TEST(Machine, SaysWhenItWasBusy) {
  MachineInfo machine;
  EXPECT_EQ(peak_note(machine), "");
  machine.peaks_gflops = {200, 197, 199};
  EXPECT_EQ(peak_note(machine), "");
  machine.peaks_gflops = {200, 164, 199};
  EXPECT_EQ(
      peak_note(machine),
      "The peak varied by 18 % during this run (164 to 200 GFLOP/s in 3 measurements): other processes were busy, "
      "figures are low.");
  machine.peaks_gflops = {200};
  machine.bf16_peaks_gflops = {300, 400};
  EXPECT_EQ(peak_note(machine),
            "The bf16 peak varied by 25 % during this run (300 to 400 GFLOP/s in 2 measurements): other processes were "
            "busy, figures are low.");
  machine.peaks_gflops = {200, 100};
  EXPECT_TRUE(peak_note(machine).starts_with("The fp32 peak varied by 50 %")) << peak_note(machine);
}

TEST(Benchmark, RanksShareTheMachineAndSeeTheSameLosses) {
  const BenchmarkRow one = run(1, short_run);
  const BenchmarkRow two = run(2, short_run);
  ASSERT_EQ(two.losses.size(), one.losses.size());
  for (size_t i = 0; i < one.losses.size(); ++i) EXPECT_NEAR(two.losses[i], one.losses[i], 1e-4);
  EXPECT_EQ(two.layout.ep, 2);
  EXPECT_EQ(two.kernels.back().ours, "de-duplicated all-to-all, threads");
  EXPECT_EQ(two.layout.gbs, one.layout.gbs);
}

TEST(Benchmark, ProfilersRecordTheNamedSteps) {
  const emulation::ProfilingTool tool;
  run(1,
      {"--step_scheduler.max_steps", "3", "--benchmark.warmup_steps", "1", "--step_scheduler.global_batch_size", "1",
       "--step_scheduler.local_batch_size", "1", "--dataset.seq_len", "16", "--benchmark.nsys_start", "1",
       "--benchmark.nsys_end", "1", "--benchmark.nsys_ranks", "[0]"},
      false, test::emulated_gpu().hardware);
  std::string steps;
  for (const std::string& told : tool.told_by(std::this_thread::get_id())) {
    if (told == "start" || told == "stop" || told.starts_with("> step ")) steps += told + ", ";
  }
  EXPECT_EQ(steps, "> step 1, start, > step 2, stop, > step 3, ");
}

TEST(Benchmark, PlannedMemoryIsThatOfTheFullestRank) {
  std::vector<std::string> overrides = short_run;
  // The rank of the hot expert gets more rows than the others.
  overrides.insert(overrides.end(), {"--benchmark.balance", "skewed", "--benchmark.skew", "4"});
  const BenchmarkRow row = run(4, overrides);
  EXPECT_EQ(row.layout.ep, 4);
  EXPECT_EQ(row.max_memory_bytes, row.planned_memory_bytes);
  EXPECT_TRUE(row.grown.empty());
}

TEST(Benchmark, SaysWhatPartOfTheModelRan) {
  std::vector<std::string> overrides = short_run;
  overrides.insert(overrides.end(), {"--benchmark.local_shard", "4", "--benchmark.optimizer", "false"});
  const BenchmarkRow part = run(1, overrides);
  EXPECT_DOUBLE_EQ(part.gflop_per_token, run(1, short_run).gflop_per_token) << "the work of a token is the model's";
  const auto json = nlohmann::json::parse(report_json({.machine = slow_machine(), .rows = {part}})).at("rows").at(0);
  EXPECT_EQ(json.at("local_shard"), "1/4");
  EXPECT_EQ(json.at("layers"), 2);
  EXPECT_EQ(json.at("optimizer_state_dtype"), "none");
}

TEST(Benchmark, FiguresFollowFromTheMedian) {
  BenchmarkRow row;
  row.layout = {.ranks = 2, .gbs = 8, .seq_len = 100};
  row.step_seconds = {1.0, 4.0, 2.0};
  row.gflop_per_token = 5;
  row.peak_tflops = 4;
  EXPECT_DOUBLE_EQ(row.median_seconds(), 2);
  EXPECT_DOUBLE_EQ(row.spread(), 1.5);
  EXPECT_DOUBLE_EQ(row.tokens_per_s_per_rank(), 200);
  EXPECT_DOUBLE_EQ(row.model_tflops_per_rank(), 1);
  EXPECT_DOUBLE_EQ(row.mfu(), 0.25);
  row.step_seconds = {1.0, 3.0};
  EXPECT_DOUBLE_EQ(row.median_seconds(), 2);
}

// The table's figures are its tokens times the FLOPs of the model as it is; where the table counted otherwise, the file
// says what it printed.
TEST(Benchmark, PublishedFiguresAreThoseOfTheModel) {
  int corrected = 0;
  for (const char* file :
       {"deepseek_v3_1024", "deepseek_v3_256", "kimi_k2_256", "qwen3_moe_30b_8", "gpt_oss_20b_8", "gpt_oss_120b_64"}) {
    SCOPED_TRACE(file);
    const Config config =
        config::load(std::string(SLUICE_SOURCE_DIR) + "/examples/benchmark/configs/" + file + ".yaml");
    const config::Published& published = config.benchmark.published;
    const RunSpec spec = resolve(config, ranks_of(config), Purpose::plan);
    const auto tflops = [&](const ModelConfig& model) {
      return model_flops_per_sequence(model, spec.seq_len) * static_cast<double>(spec.sampling.global_batch) /
             (*published.step_time_s * static_cast<double>(*published.gpus)) * 1e-12;
    };
    EXPECT_NEAR(tflops(spec.model), published.corrected_tflops.value_or(*published.tflops_per_s_per_gpu), 0.5);
    if (!published.corrected_tflops) continue;
    ModelConfig counted = spec.model;
    counted.head_dim = counted.hidden_size / counted.num_heads;
    EXPECT_EQ(counted.head_dim, 45);
    EXPECT_NEAR(tflops(counted), *published.tflops_per_s_per_gpu, 0.5);
    EXPECT_NE(published.corrected_because.value_or("").find("head_dim 45"), std::string::npos);
    ++corrected;
  }
  EXPECT_EQ(corrected, 2);
}

TEST(Forecast, RefusesWhatDoesNotFit) {
  const RunForecast forecast{.total_bytes = uint64_t{3} << 30, .host_bytes = uint64_t{3} << 30};
  EXPECT_NO_THROW(require_memory(forecast, uint64_t{3} << 30, ""));
  try {
    require_memory(forecast, uint64_t{2} << 30, "take less");
    FAIL() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_STREQ(error.what(), "this run needs 3.00 GiB of memory and 2.00 GiB can be had");
    EXPECT_EQ(error.hint(), "take less; sluice plan FILE says where memory goes and what frees some");
  }
  // Where other hosts have a part of the ranks it is this one's that counts.
  const RunForecast shared{.total_bytes = uint64_t{6} << 30, .host_bytes = uint64_t{3} << 30};
  EXPECT_NO_THROW(require_memory(shared, uint64_t{3} << 30, ""));
  try {
    require_memory(shared, uint64_t{2} << 30, "take less");
    FAIL() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "this run needs 3.00 GiB of memory on this host and 2.00 GiB can be had");
  }
}

TEST(Machine, BetterFiguresWin) {
  MachineInfo machine = slow_machine();
  MachineInfo other = slow_machine();
  other.peak_gflops = 2;
  other.bandwidth_gbs = 0.5;
  other.bf16_peak_gflops = 3;
  other.bf16_peaks_gflops = {3};
  EXPECT_TRUE(machine.take_best(other));
  EXPECT_FALSE(machine.take_best(other));
  EXPECT_EQ(machine.bf16_peak_gflops, 3);
  EXPECT_EQ(machine.bf16_peaks_gflops.size(), 2U) << "all are kept";
  EXPECT_EQ(describe_ceilings(machine), "2 GFLOP/s fp32 peak, 3 GFLOP/s bf16 peak, 1.0 GB/s");
  EXPECT_EQ(machine.peak_gflops, 2);
  EXPECT_EQ(machine.bandwidth_gbs, 1);
  EXPECT_GE(usable_cores(), 1);
  EXPECT_GT(available_memory(), 0U);
}

}  // namespace
}  // namespace sluice
