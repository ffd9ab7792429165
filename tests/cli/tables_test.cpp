// What the commands print, at the widths it must fit.
#include <gtest/gtest.h>

#include <sstream>

#include "base/text.h"
#include "cli/doctor.h"
#include "cli/ops_table.h"

namespace sluice::cli {
namespace {

void expect_width(const std::string& text, size_t width) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(columns_of(line), width) << line;
}

BenchmarkRow profiled_row() {
  OpProfile profile{.step_seconds = 1, .ops = {}, .roof = {.flops = 100e9, .bandwidth = 10e9}};
  profile.ops.push_back({.name = "gemm", .seconds = 0.5, .calls = {{.flops = 25e9, .bytes_read = 1e9}}});
  profile.ops.push_back({.name = "mla_heads", .seconds = 0.2, .calls = {{.flops = 1e9, .bytes_read = 6e9}}});
  profile.ops.push_back({.name = "head_loss", .seconds = 0.1, .calls = {{.flops = 12.2e9, .bytes_read = 1}}});
  profile.ops.push_back(
      {.name = "residual_rmsnorm_backward", .seconds = 0.1, .calls = std::vector<Cost>(123'456, {.bytes_read = 1e3})});
  BenchmarkRow row;
  row.row = "R4";
  row.ops = std::move(profile);
  return row;
}

std::string line_with(const std::string& text, const std::string& word) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find(word) != std::string::npos) return line;
  }
  return {};
}

TEST(OpsTable, FitsFrom80Columns) {
  for (const size_t width : {80, 100}) {
    const std::string text = ops_table(profiled_row(), width);
    expect_width(text, width);
    EXPECT_NE(text.find("123456"), std::string::npos);
  }
}

// bf16 products twice as fast as the fp32 peak are no mistake where bf16 has its own.
TEST(OpsTable, HoldsEachProductAgainstThePeakOfItsFactors) {
  BenchmarkRow row = profiled_row();
  row.ops->roof.bf16_flops = 200e9;
  row.ops->ops[0].calls = {{.flops = 80e9, .bytes_read = 1e9, .factors = DType::bf16}};
  row.ops->ops[1].calls = {{.flops = 25e9, .bytes_read = 1e6}};
  const std::string text = ops_table(row, 100);
  EXPECT_TRUE(line_with(text, "gemm").ends_with(" 80.0 %")) << text;
  EXPECT_TRUE(line_with(text, "mla_heads").ends_with(" above peak")) << "f32 stays held against its own" << text;
}

// Memory traffic that a cache served, and arithmetic faster than a peak that was measured too low.
TEST(OpsTable, PrintsNoShareAbove100Percent) {
  const std::string text = ops_table(profiled_row(), 100);
  EXPECT_TRUE(line_with(text, "gemm").ends_with(" 50.0 %")) << text;
  EXPECT_TRUE(line_with(text, "mla_heads").ends_with(" cache")) << text;
  EXPECT_TRUE(line_with(text, "head_loss").ends_with(" above peak")) << text;
  EXPECT_TRUE(line_with(text, "whole step").ends_with(" 98.4 %")) << text;
  EXPECT_NE(text.find("\"cache\": faster than that"), std::string::npos);
}

Findings idle_machine() {
  Findings findings;
  findings.machine.cpu = "AMD EPYC 9654 96-Core";
  findings.machine.cores = 4;
  findings.machine.isa = "AVX-512";
  findings.machine.memory_bytes = uint64_t{16} << 30;
  findings.machine.os = "Debian GNU/Linux 12 (bookworm), Linux 6.1.0";
  findings.machine.compiler = "g++ 12.2.0";
  findings.machine.peak_gflops = 400;
  findings.machine.peaks_gflops = {390, 400};
  findings.machine.bandwidth_gbs = 30;
  findings.cores_there = 4;
  findings.load = 0.1;
  findings.available = uint64_t{8} << 30;
  findings.huge_pages = "madvise";
  findings.gpus.why_none =
      "this build has no CUDA backend, and that is said in a text longer than a line of a terminal";
  return findings;
}

TEST(DoctorReport, FitsFrom80ColumnsAndEndsWithTheVerdict) {
  Findings findings = idle_machine();
  EXPECT_TRUE(doctor_report(findings, 80).ends_with("\nready\n"));
  findings.load = 3.4;
  findings.driver_there = true;
  findings.huge_pages = "never";
  for (const size_t width : {80, 100}) {
    const std::string text = doctor_report(findings, width);
    expect_width(text, width);
    EXPECT_NE(text.find("\nin the way\n"), std::string::npos);
  }
}

TEST(DoctorReport, NamesThePeakOfEachPrecision) {
  Findings findings = idle_machine();
  EXPECT_NE(line_with(doctor_report(findings, 80), "bf16 peak").find("none: the processor has no instruction"),
            std::string::npos);
  findings.machine.bf16_peak_gflops = 800;
  EXPECT_NE(line_with(doctor_report(findings, 80), "bf16 peak").find("800 GFLOP/s bf16 products, 200 a thread"),
            std::string::npos);
}

// A slow processor keeps sluice from running, a busy one does not.
TEST(DoctorReport, BusyIsNotNotReady) {
  Findings findings = idle_machine();
  findings.machine.peak_gflops = 40;
  EXPECT_EQ(verdict(findings), "not ready: a thread reaches 10.0 GFLOP/s, at least 20 are expected of an idle core");
  findings.load = 3.4;
  EXPECT_EQ(verdict(findings), "ready, but busy: other processes keep about 3.4 of 4 cores busy");
  findings.load = 0.1;
  findings.machine.peaks_gflops = {25, 40};
  EXPECT_EQ(verdict(findings),
            "ready, but busy: the peak was 25 GFLOP/s once and 40 a moment later, other processes are at work");
  findings.available = 1 << 20;
  EXPECT_EQ(verdict(findings).substr(0, 11), "not ready: ");
}

}  // namespace
}  // namespace sluice::cli
