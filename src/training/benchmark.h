// A benchmark row: warm-up steps, timed steps, and everything that must stand beside the figures.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "config/load.h"
#include "trainer/layout.h"
#include "trainer/op_profile.h"
#include "trainer/pretrained.h"
#include "training/progress.h"
#include "twin/forecast.h"

namespace sluice {

// The same row measured elsewhere.
struct PublishedRow {
  config::Published columns;
  std::optional<double> peak_tflops;  // of its machine
};

struct RankGrowth {
  int rank = 0;
  ArenaGrowth growth;
};
// "3 arenas of 2 ranks by 1.20 MiB together, the most rank 3's chunk 0 activations 1 by 800 KiB"; empty for none.
std::string describe(const std::vector<RankGrowth>& grown);

struct BenchmarkRow {
  std::string row;                      // "R4"; empty for a file without a label
  std::string model;                    // "Qwen3-30B-A3B"
  std::string config;                   // the file
  std::string scale;                    // "laptop", "tiny", "full"
  bool row_layout = false;              // ranks, degrees and batch are the row's own, not fitted to fewer ranks
  std::vector<config::Change> changes;  // what scale and fit changed of the file
  std::string precision;                // of parameters and activations: "fp32", "bf16", "fp64"
  std::string device;                   // "cpu", "ref", "cuda"
  int threads = 1;                      // of all ranks together
  int processes = 1;                    // that the ranks are threads of
  int hosts = 1;                        // that these are on
  Layout layout;
  int64_t warmup_steps = 0;
  std::vector<double> step_seconds;  // timed steps, the slowest rank's
  std::vector<double> losses;        // of every step, warm-up included
  std::vector<double> mtp_losses;    // of the extra layer, where there is one
  double gflop_per_token = 0;
  double peak_tflops = 0;  // of a rank
  std::string
      peak_precision;        // of the products that were measured: `precision`, or fp32 where that has none of its own
  bool peak_stated = false;  // by benchmark.peak_tflops, not measured
  double roofline_seconds = 0;
  double load_factor = 1;  // fullest expert over the mean, averaged over layers, micro-batches and ranks of a step
  uint64_t max_memory_bytes = 0;
  uint64_t planned_memory_bytes = 0;
  std::vector<RankGrowth> grown;      // arenas that needed more than was planned
  std::string balance;                // "published", "spread", "skewed", "router"; "none" without experts
  double gate_noise = 0;              // of the published gate
  std::string recompute;              // see recompute_name
  std::string data;                   // "mock", "bytes"
  double max_grad_norm = 0;           // gradients are clipped to it; 0: they are not
  std::string optimizer_state_dtype;  // "fp32" with master weights, "bf16" without, "none": no optimizer
  int64_t layers = 0;
  std::string features;            // see describe_features
  std::vector<KernelUse> kernels;  // what carried out each part on rank 0
  int64_t local_shard = 1;         // N: as one of N expert-parallel ranks computes, without the others
  std::vector<config::Unavailable> unavailable;
  std::optional<PublishedRow> published;
  std::optional<OpProfile> ops;  // of rank 0, one step

  double median_seconds() const;
  double spread() const;  // (slowest - fastest) / median
  double tokens_per_s_per_rank() const;
  double model_tflops_per_rank() const;
  double mfu() const { return model_tflops_per_rank() / peak_tflops; }
};

// "81.3 % of the speed this step's operations allow at best (1.02 s)", or that caches made it faster than that.
std::string roofline_note(const BenchmarkRow& row);
// Why a row has no MFU: it was faster than the peak that was measured. Empty for one that has.
std::string missing_mfu_note(const BenchmarkRow& row);

struct BenchmarkJob {
  std::string config;  // these four name the row
  std::string scale;
  bool row_layout = false;
  std::vector<config::Change> changes = {};
  Config settings;
  const Pretrained* weights = nullptr;  // null: drawn at random
  bool profile_ops = false;             // one more step, with each operation timed: planned for like the others
  Hardware hardware = {};               // instead of what runtime.device names
  // Of one of several processes: the way to the others and the threads of this one; none: what `settings` ask for.
  std::optional<LaunchOptions> session = {};
};

// Measures the machine again between the warm-up and the timed steps (not a GPU, whose memory the run has) and
// afterwards; `machine` and the row hold the best figures. Of several processes all call it, and the first does that;
// the others' rows say nothing.
BenchmarkRow run_benchmark(const BenchmarkJob& job, const RunSpec& run, MachineInfo& machine, Progress& progress);

// "none", "full", "norm act".
std::string recompute_name(const Config& config);

// What one call of the benchmark measured: all that is printed, and what --json writes.
struct BenchmarkReport {
  std::string version;
  std::string commit;
  std::string layouts = "fit";  // of each row: "fit", "row", or "both" where the row's own is quick
  MachineInfo machine;
  std::vector<BenchmarkRow> rows;
};

}  // namespace sluice
