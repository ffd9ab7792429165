#include "cli/bench_table.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <sstream>

#include "training/records.h"

namespace sluice::cli {
namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

BenchmarkRow row_of(const std::string& label, bool row_layout) {
  BenchmarkRow row{.row = label,
                   .model = "a model",
                   .config = label + ".yaml",
                   .scale = row_layout ? "tiny" : "laptop",
                   .row_layout = row_layout,
                   .precision = "fp32"};
  row.layout = {
      .ranks = 1024, .gbs = 8192, .mbs = 1, .lbs = 8, .ga = 4, .seq_len = 512, .pp = 4, .ep = 64, .vp = 8, .fsdp = 256};
  row.step_seconds = {2, 3, 4};
  row.losses = {8.5, 8.25};
  row.gflop_per_token = 0.023;
  row.peak_tflops = 0.234;
  row.balance = "published";
  row.data = "mock";
  row.recompute = "full";
  row.optimizer_state_dtype = "bf16";
  row.max_memory_bytes = uint64_t{222} << 20;
  row.changes = {{"dataset.seq_len", "4096", "512"}, {"model.config.hidden_size", "7168", "256"}};
  config::Published columns{.gpus = 64,
                            .machine = "DGX-H100",
                            .precision = "BF16",
                            .gbs = 512,
                            .mbs = 2,
                            .lbs = 2,
                            .ga = 4,
                            .seq_len = 4096,
                            .tp = 1,
                            .pp = 1,
                            .cp = 1,
                            .fsdp = 64};
  columns.kernels = "TE + DeepEP + FlexAttn";
  columns.step_time_s = 4.30;
  columns.tflops_per_s_per_gpu = 231;
  columns.tokens_per_s_per_gpu = 7626;
  columns.corrected_tflops = 249;
  columns.corrected_because = "counted with head_dim 45";
  columns.notes = "mock data, no padding";
  columns.step = "forward and backward";
  row.published = PublishedRow{.columns = columns, .peak_tflops = 989};
  return row;
}

BenchmarkReport report_of(std::vector<BenchmarkRow> rows) {
  BenchmarkReport report{.version = "0.1.0", .commit = "abc", .machine = {}, .rows = std::move(rows)};
  report.machine.cpu = "EPYC";
  report.machine.peak_gflops = 234;
  report.machine.bf16_peak_gflops = 468;
  report.machine.bandwidth_gbs = 29;
  return report;
}

bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(BenchTable, ALineHasThePublishedColumnsAsPrinted) {
  const std::string text = render(report_of({row_of("R6", false)}), 100);
  EXPECT_TRUE(
      holds(text,
            "\n published BF16    64  512   2   2  4 4096  1  1  1  -  -   64   4.30  7,626   231T  23.4/989T     -\n"
            "           TE + DeepEP + FlexAttn\n"))
      << text;
  EXPECT_TRUE(holds(
      text, "\n laptop    fp32  1024 8192   1   8  4  512  1  4  1 64  8  256  3.000  1,365  31.4G  13.4/234G  222M\n"))
      << text;
  EXPECT_TRUE(holds(text,
                    "published TFLOP/s: 231 of R6 is 249 as the other rows are counted; what was printed was "
                    "counted with\n  head_dim 45."))
      << text;
}

TEST(BenchTable, LinesFitTheirWidth) {
  const BenchmarkReport report = report_of({row_of("R1", false), row_of("R1", true), row_of("R6", false)});
  for (const size_t width : {80U, 99U, 100U, 140U}) {
    for (const std::string& line : lines_of(render(report, width))) EXPECT_LE(line.size(), width) << line;
  }
  // Narrow, the figures continue on the next line.
  EXPECT_TRUE(holds(render(report, 80), "  1  -  -   64\n             4.30  7,626   231T  23.4/989T     -\n"))
      << render(report, 80);
}

TEST(BenchTable, OneModelSaysEverythingSeveralWhatTheyShare) {
  const std::string one = render(report_of({row_of("R1", false), row_of("R1", true)}), 100);
  EXPECT_TRUE(holds(one, "R1 changed: seq_len 4096 -> 512, hidden_size 7168 -> 256")) << one;
  EXPECT_TRUE(holds(one, "R1 layout changed:")) << one;
  EXPECT_TRUE(holds(one, "loss 8.5000 -> 8.2500")) << one;
  const std::string two = render(report_of({row_of("R1", false), row_of("R2", false)}), 100);
  EXPECT_FALSE(holds(two, "changed: seq_len")) << two;
  EXPECT_TRUE(holds(two, "sluice bench R1\n")) << two;
  BenchmarkReport own = report_of({row_of("R1", true), row_of("R2", true)});
  own.layouts = "row";
  EXPECT_TRUE(holds(render(own, 100), "sluice bench R1 --layout row\n"));
  BenchmarkReport unnamed = report_of({row_of("", false), row_of("R2", false)});
  unnamed.rows[0].config = "my.yaml";
  EXPECT_TRUE(holds(render(unnamed, 100), "sluice bench my.yaml\n"));
}

TEST(BenchTable, NamesTheRowsWhoseOwnLayoutDidNotRun) {
  BenchmarkReport report =
      report_of({row_of("R1", false), row_of("R2", false), row_of("R6", false), row_of("R6", true)});
  report.layouts = "both";
  EXPECT_TRUE(holds(render(report, 100), "sluice bench R1 R2 --layout row\n")) << render(report, 100);
  report.rows.resize(1);
  EXPECT_TRUE(holds(render(report, 100), "sluice bench R1 --layout row\n")) << render(report, 100);
  report.layouts = "fit";
  EXPECT_FALSE(holds(render(report, 100), "--layout row"));
}

TEST(BenchTable, SaysWhereALayoutIsNotThePublishedOne) {
  BenchmarkRow row = row_of("R6", true);
  EXPECT_TRUE(
      holds(render(report_of({row}), 200), "R6 layout is not as published: ranks 1024 for 64, GBS 8192 for 512,"))
      << render(report_of({row}), 200);
  row.layout = {.ranks = 64, .gbs = 512, .mbs = 2, .lbs = 2, .ga = 4, .seq_len = 64, .ep = 64, .fsdp = 64};
  EXPECT_FALSE(holds(render(report_of({row}), 200), "not as published"));
}

TEST(BenchTable, SaysWhatThePeakIs) {
  BenchmarkRow stated = row_of("R2", false);
  stated.peak_stated = true;
  const std::string text = render(report_of({row_of("R1", false), stated}), 400);
  EXPECT_TRUE(holds(
      text, "(at the end 234 GFLOP/s fp32 peak, 468 GFLOP/s bf16 peak, 29.0 GB/s) (R1); benchmark.peak_tflops (R2)."))
      << text;
}

// What differs is said with the rows it is of; a row whose layouts are alike is named once.
// A processor without the instruction computes bf16 with fp32 multiply-adds.
TEST(BenchTable, SaysWhereBf16IsHeldAgainstTheFp32Peak) {
  const std::string note = "bf16 is held against the fp32 peak";
  BenchmarkRow row = row_of("R1", false);
  row.precision = "bf16";
  row.peak_precision = "bf16";
  EXPECT_FALSE(holds(render(report_of({row}), 200), note));
  row.peak_precision = "fp32";
  EXPECT_TRUE(holds(render(report_of({row}), 200), note));
  row.peak_stated = true;
  EXPECT_FALSE(holds(render(report_of({row}), 200), note)) << "another peak was given";
  row = row_of("R1", false);
  row.peak_precision = "fp32";
  EXPECT_FALSE(holds(render(report_of({row}), 200), note)) << "its own";
}

TEST(BenchTable, NotesTellRowsApart) {
  BenchmarkRow clipped = row_of("R2", false);
  clipped.max_grad_norm = 1;
  const std::string text =
      render(report_of({row_of("R1", false), row_of("R1", true), clipped, row_of("R3", true)}), 400);
  EXPECT_TRUE(holds(text, "no gradient clipping (R1, R3 layout); gradients clipped to norm 1 (R2), optimizer")) << text;
}

TEST(BenchTable, KernelsThatAreAlikeStandTogether) {
  BenchmarkRow row = row_of("R1", false);
  row.kernels = {{"attention", "cuDNN: causal; own CUDA: sinks"},
                 {"linear", "cuBLASLt"},
                 {"rms_norm", "own CUDA"},
                 {"dispatcher", "no exchange at EP 1"}};
  EXPECT_TRUE(
      holds(render(report_of({row}), 400),
            "\n           cuDNN: attention (causal) | own CUDA: attention (sinks), rms_norm | cuBLASLt: linear | no "
            "exchange at EP 1\n"))
      << render(report_of({row}), 400);
}

// A file that somebody changed is printed or refused by name, whatever stands where.
TEST(BenchTable, AChangedReportIsPrintedOrRefused) {
  BenchmarkRow row = row_of("R1", false);
  row.layout.seq_len = 512;
  row.kernels = {{"attention", "own: causal"}, {"linear", "own"}};
  const auto whole = nlohmann::json::parse(report_json(report_of({row})));
  const std::vector<nlohmann::json> strangers{
      nullptr, -1, 0, 1e300, "x", "; ", nlohmann::json::array(), nlohmann::json::object()};
  int refused = 0, printed = 0;
  const auto try_at = [&](const nlohmann::json::json_pointer& place) {
    for (const nlohmann::json& stranger : strangers) {
      nlohmann::json changed = whole;
      changed[place] = stranger;
      try {
        printed += render(read_report(changed.dump(), "r.json"), 100).empty() ? 0 : 1;
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::user) << place.to_string();
        EXPECT_TRUE(std::string(error.what()).starts_with("r.json ")) << error.what();
        ++refused;
      }
    }
  };
  const nlohmann::json places = whole.flatten();
  for (const auto& [place, value] : places.items()) try_at(nlohmann::json::json_pointer(place));
  for (const char* place : {"/machine", "/rows", "/rows/0", "/rows/0/published", "/rows/0/kernels", "/rows/0/loss",
                            "/rows/0/step_time_s", "/rows/0/step_time_s/all", "/rows/0/changed"}) {
    try_at(nlohmann::json::json_pointer(place));
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(printed, 100);
}

}  // namespace
}  // namespace sluice::cli
