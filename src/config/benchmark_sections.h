// The section of a configuration that says what a benchmark times, and what was published. See config.h.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/types.h"

namespace sluice::config {

// The row as it was published: its columns, null where the page has none or "-". `corrected_*` is what the page would
// say if it counted this row as the others.
struct Published {
  std::optional<std::int64_t> gpus;
  std::optional<std::string> machine;
  std::optional<std::string> precision;
  std::optional<std::int64_t> gbs;
  std::optional<std::int64_t> mbs;
  std::optional<std::int64_t> lbs;
  std::optional<std::int64_t> ga;
  std::optional<std::int64_t> seq_len;
  std::optional<std::int64_t> tp;
  std::optional<std::int64_t> pp;
  std::optional<std::int64_t> cp;
  std::optional<std::int64_t> ep;
  std::optional<std::int64_t> vp;
  std::optional<std::int64_t> fsdp;
  std::optional<std::string> kernels;
  std::optional<double> step_time_s;
  std::optional<double> tflops_per_s_per_gpu;
  std::optional<double> tokens_per_s_per_gpu;
  std::optional<double> corrected_tflops;
  std::optional<std::string> corrected_because;
  std::optional<std::string> notes;
  std::optional<std::string> step;

  template <class V>
  void fields(V& v) {
    v("gpus", gpus, "[sluice] GPUs it ran on", count);
    v("machine", machine, "[sluice] what they were");
    v("precision", precision, "[sluice] of its products");
    v("gbs", gbs, "[sluice] sequences per optimizer step", count);
    v("mbs", mbs, "[sluice] sequences in one forward pass", count);
    v("lbs", lbs, "[sluice] sequences per data-parallel rank per local batch", count);
    v("ga", ga, "[sluice] gradient accumulation steps", count);
    v("seq_len", seq_len, "[sluice] tokens of a sequence", count);
    v("tp", tp, "[sluice] tensor parallel ranks", count);
    v("pp", pp, "[sluice] pipeline parallel ranks", count);
    v("cp", cp, "[sluice] context parallel ranks", count);
    v("ep", ep, "[sluice] expert parallel ranks", count);
    v("vp", vp, "[sluice] pipeline stages per rank", count);
    v("fsdp", fsdp, "[sluice] ranks that shard a dense parameter", count);
    v("kernels", kernels, "[sluice] libraries its kernels came from");
    v("step_time_s", step_time_s, "[sluice] seconds per optimizer step", positive);
    v("tflops_per_s_per_gpu", tflops_per_s_per_gpu, "[sluice] model TFLOP per second per GPU, as printed", positive);
    v("tokens_per_s_per_gpu", tokens_per_s_per_gpu, "[sluice] tokens per second per GPU", positive);
    v("corrected_tflops", corrected_tflops, "[sluice] what that is, counted as for the other rows", positive);
    v("corrected_because", corrected_because, "[sluice] and how it was counted");
    v("notes", notes, "[sluice] what the page says of how it was run");
    v("step", step, "[sluice] what the page counts as a step");
  }
};

struct Benchmark {
  std::int64_t warmup_steps = 2;
  std::optional<double> peak_tflops;
  std::optional<std::string> json_output_path;
  std::optional<Balance> balance;
  double skew = 2;
  std::int64_t local_shard = 1;
  bool optimizer = true;
  std::optional<std::string> row;
  Published published;
  std::optional<std::int64_t> nsys_start;
  std::optional<std::int64_t> nsys_end;
  std::vector<std::int64_t> nsys_ranks;

  template <class V>
  void fields(V& v) {
    v("warmup_steps", warmup_steps, "first steps, left out of the timing", count_or_0);
    v("peak_tflops", peak_tflops, "denominator of MFU, TFLOP/s; null: measured on this machine", positive);
    v("json_output_path", json_output_path, "file for the results");
    v("balance", balance, "[sluice] how tokens find experts; null: model.backend.fake_balanced_gate decides");
    v("skew", skew, "[sluice] balance skewed: load of the fullest expert over the mean", Range{.low = 1});
    v("local_shard", local_shard,
      "[sluice] N: as one of N expert-parallel ranks computes, alone, with 1/N of the experts", count);
    v("optimizer", optimizer, "[sluice] false: leave out the optimizer's step and its memory");
    v("row", row, "[sluice] label of the row in the table");
    v("nsys_start", nsys_start, "step, counted from 0, that nsys records from; -1 or null: never", step_or_none);
    v("nsys_end", nsys_end, "last step that nsys records; -1 or null: that of the run", step_or_none);
    v("nsys_ranks", nsys_ranks, "ranks that start and stop nsys", count_or_0);
    v.section("published", published, "the published figures of the row");
    v.ignore("num_nodes", "NeMo does not read it either");
    v.ignore("detailed_timers", "steps are timed without waiting between their parts");
  }
};

}  // namespace sluice::config
