#include "training/records.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sluice {
namespace {

// Every field differs from its preset, and those of one type from each other.
BenchmarkReport full_report() {
  BenchmarkRow row{.row = "R4",
                   .model = "a model",
                   .config = "r.yaml",
                   .scale = "tiny",
                   .row_layout = true,
                   .changes = {{"dataset.seq_len", "4096", "64"}},
                   .precision = "fp32",
                   .device = "cpu",
                   .threads = 2};
  row.layout = {.ranks = 16,
                .gbs = 512,
                .mbs = 3,
                .lbs = 4,
                .ga = 5,
                .seq_len = 64,
                .tp = 6,
                .pp = 7,
                .cp = 8,
                .ep = 9,
                .vp = 10,
                .fsdp = 11};
  row.warmup_steps = 2;
  row.step_seconds = {1.0, 4.0, 2.0};
  row.losses = {3, 2.5};
  row.mtp_losses = {4, 3.5};
  row.gflop_per_token = 0.5;
  row.peak_tflops = 0.25;
  row.peak_precision = "fp32";
  row.peak_stated = true;
  row.roofline_seconds = 0.75;
  row.load_factor = 1.5;
  row.max_memory_bytes = 1000;
  row.planned_memory_bytes = 900;
  row.balance = "published";
  row.gate_noise = 0.125;
  row.recompute = "full";
  row.data = "mock";
  row.max_grad_norm = 1.25;
  row.optimizer_state_dtype = "bf16";
  row.grown = {{3, {.arena = "scratch", .chunks = 1, .bytes = 64}}};
  row.layers = 12;
  row.features = "attention";
  row.kernels = {{"attention", "own: causal"}, {"linear", "own"}};
  row.local_shard = 8;
  row.unavailable = {{"fp8.enabled", "true", "", "8-bit products are not available"}};
  config::Published columns{.gpus = 8,
                            .machine = "DGX-H100",
                            .precision = "BF16",
                            .gbs = 21,
                            .mbs = 22,
                            .lbs = 23,
                            .ga = 24,
                            .seq_len = 25,
                            .tp = 26,
                            .pp = 27,
                            .cp = 28,
                            .ep = std::nullopt,
                            .vp = 29,
                            .fsdp = 30};
  columns.kernels = "TE";
  columns.step_time_s = 21.773;
  columns.tflops_per_s_per_gpu = 279;
  columns.tokens_per_s_per_gpu = 13058;
  columns.corrected_tflops = 299;
  columns.corrected_because = "counted otherwise";
  columns.notes = "mock data";
  columns.step = "forward";
  row.published = PublishedRow{.columns = columns, .peak_tflops = 989};
  BenchmarkRow bare;
  bare.step_seconds = {1};
  bare.losses = {1};
  bare.layout.seq_len = 1;
  bare.gflop_per_token = bare.peak_tflops = 1;
  BenchmarkReport report{.version = "0.1", .commit = "abc", .machine = {}, .rows = {row, bare}};
  report.machine.cpu = "a processor";
  report.machine.cores = 3;
  report.machine.isa = "AVX2";
  report.machine.memory_bytes = 77;
  report.machine.os = "an OS";
  report.machine.compiler = "g++";
  report.machine.gpu = "a GPU";
  report.machine.libraries = "CUDA";
  report.machine.peak_dtype = DType::bf16;
  report.machine.peak_gflops = 203;
  report.machine.peaks_gflops = {201, 203};
  report.machine.bf16_peak_gflops = 407;
  report.machine.bf16_peaks_gflops = {407, 401};
  report.machine.bandwidth_gbs = 27;
  return report;
}

TEST(Report, ReadsBackAsItWasWritten) {
  const std::string json = report_json(full_report());
  EXPECT_EQ(report_json(read_report(json, "r.json")), json);
  // Nothing was left at its preset, so nothing can be lost unseen: every value of the first row differs from a bare
  // one.
  const auto rows = nlohmann::json::parse(json).at("rows");
  for (const auto& [key, value] : rows.at(0).items()) {
    EXPECT_NE(value, rows.at(1).at(key)) << key;
  }
  const nlohmann::json& published = rows.at(0).at("published");
  for (const auto& [key, value] : published.items()) {
    EXPECT_EQ(value.is_null(), key == "ep") << key;
  }
}

// Files of before bf16 was computed on a CPU have no peak of it, and rows are held against the peak of their precision.
TEST(Report, AFileWithoutPrecisionsOfPeaksIsRead) {
  nlohmann::json old = nlohmann::json::parse(report_json(full_report()));
  EXPECT_EQ(old.at("machine").erase("bf16_peak_gflops") + old.at("machine").erase("bf16_peak_measurements_gflops"), 2U);
  for (nlohmann::json& row : old.at("rows")) row.erase("peak_precision");
  const BenchmarkReport report = read_report(old.dump(), "old.json");
  EXPECT_EQ(report.machine.bf16_peak_gflops, 0);
  EXPECT_TRUE(report.machine.bf16_peaks_gflops.empty());
  EXPECT_EQ(report.rows.front().peak_precision, report.rows.front().precision);
}

TEST(Report, FiguresFollowFromTheFields) {
  const auto row = nlohmann::json::parse(report_json(full_report())).at("rows").at(0);
  EXPECT_EQ(row.at("step_time_s").at("median"), 2.0);
  EXPECT_EQ(row.at("step_time_s").at("min"), 1.0);
  EXPECT_EQ(row.at("step_time_s").at("max"), 4.0);
  EXPECT_DOUBLE_EQ(row.at("tokens_per_s_per_gpu"), 512 * 64 / (2.0 * 16));
  EXPECT_DOUBLE_EQ(row.at("mfu"), 512 * 64 / (2.0 * 16) * 0.5e-3 / 0.25);
  EXPECT_EQ(row.at("local_shard"), "1/8");
  EXPECT_EQ(row.at("layout"), "row");
  EXPECT_EQ(row.at("published").at("ranks"), 8);
  EXPECT_EQ(row.at("published").at("tflops_per_s_per_gpu"), 279);
}

TEST(Report, OtherTextIsRefusedByName) {
  const std::string good = report_json(full_report());
  std::string wrong_type = good;
  wrong_type.replace(wrong_type.find("\"cores\": 3"), 10, "\"cores\": []");
  std::string wrong_shard = good;
  wrong_shard.replace(wrong_shard.find("1/8"), 3, "1/x");
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    EXPECT_NE(text.find(from), std::string::npos) << from;
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string& text :
       {changed("\"ranks\": 16", "\"ranks\": 0"), changed("\"gbs\": 512", "\"gbs\": -5"),
        changed("\"layout\": \"row\"", "\"layout\": \"banana\""), changed("1/8", "1/0"),
        changed("\"peak_dtype\": \"bf16\"", "\"peak_dtype\": \"f17\""),
        changed("\"peak_tflops\": 0.25", "\"peak_tflops\": 0"),
        changed("\"loss\": [\n        3.0,\n        2.5\n      ]", "\"loss\": []"),
        changed("          1.0,\n          4.0,\n          2.0\n", "1.0, -4.0"), std::string(), std::string("[]"),
        std::string("{}"), good.substr(0, good.size() / 2),
        std::string(R"({"version": "1", "commit": "a", "machine": {}, "rows": []})"), wrong_type, wrong_shard}) {
    try {
      read_report(text, "old.json");
      ADD_FAILURE() << "accepted: " << text.substr(0, 40);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::user);
      EXPECT_TRUE(std::string(error.what()).starts_with("old.json ")) << error.what();
    }
  }
}

}  // namespace
}  // namespace sluice
