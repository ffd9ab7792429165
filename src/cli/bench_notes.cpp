#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "base/text.h"
#include "cli/bench_runs.h"
#include "cli/bench_table.h"

namespace sluice::cli {
namespace {

bool several_models(const BenchmarkReport& report) {
  return std::ranges::any_of(report.rows,
                             [&](const BenchmarkRow& row) { return !of_one_model(row, report.rows.front()); });
}

// "a", or "a (R1, R2); b (R6)".
std::string alike_together(const std::vector<NamedText>& texts) {
  const std::vector<NamedText> groups = group_alike(texts);
  std::string list;
  for (const NamedText& group : groups) {
    list += (list.empty() ? "" : "; ") + group.text + (groups.size() > 1 ? fmt::format(" ({})", group.name) : "");
  }
  return list;
}

// "R4", or "R4 layout" where the row's own layout is told apart.
std::string name_of(const BenchmarkRow& row) {
  return label_of(row) + (row.row_layout ? " layout" : "");
}

template <class Text>
std::string by_run(const BenchmarkReport& report, Text text_of) {
  std::vector<NamedText> texts;
  for (const BenchmarkRow& row : report.rows) {
    const std::string text = text_of(row);
    // A row whose two layouts are alike is named once.
    const bool named = std::ranges::any_of(
        texts, [&](const NamedText& t) { return t.text == text && row.row_layout && t.name == label_of(row); });
    texts.push_back({named ? "" : name_of(row), text});
  }
  return alike_together(texts);
}

// Of the published lines, of which several layouts of a row share one.
template <class Text>
std::string by_published(const BenchmarkReport& report, Text text_of) {
  std::vector<NamedText> texts;
  for (const BenchmarkRow& row : report.rows) {
    const bool known = std::ranges::any_of(texts, [&](const NamedText& t) { return t.name == label_of(row); });
    if (row.published && !known) texts.push_back({label_of(row), text_of(row.published->columns)});
  }
  return alike_together(texts);
}

std::string optimizer_of(const BenchmarkRow& row) {
  if (row.optimizer_state_dtype == "none") return "no optimizer step";
  return fmt::format("optimizer state {}, {}", row.optimizer_state_dtype,
                     row.optimizer_state_dtype == "bf16" ? "no master" : "fp32 master");
}

std::string balance_of(const BenchmarkRow& row) {
  return fmt::format("balance {}{}", row.balance,
                     row.gate_noise > 0 ? fmt::format(" with noise {:g}", row.gate_noise) : "");
}

std::string clipping_of(const BenchmarkRow& row) {
  return row.max_grad_norm > 0 ? fmt::format("gradients clipped to norm {:g}", row.max_grad_norm)
                               : "no gradient clipping";
}

// How the rows were run, in the terms of the published table's notes.
std::string settings_note(const BenchmarkReport& report, size_t width) {
  return note(
      fmt::format("here: {}, {}, load {}, {}, {}, recompute {}.",
                  by_run(report, [](const BenchmarkRow& row) { return row.data + " data"; }),
                  by_run(report, balance_of),
                  by_run(report, [](const BenchmarkRow& row) { return fmt::format("{:.2f}", row.load_factor); }),
                  by_run(report, clipping_of), by_run(report, optimizer_of),
                  by_run(report, [](const BenchmarkRow& row) { return row.recompute; })),
      width);
}

// "4 processes", "4 processes on 2 hosts"
std::string processes_of(const BenchmarkRow& row) {
  return fmt::format("{} processes{}", row.processes, row.hosts == 1 ? "" : fmt::format(" on {} hosts", row.hosts));
}

std::string timing_of(const BenchmarkRow& row) {
  if (row.step_seconds.size() > 1) {
    return fmt::format("median of {} steps after {}", row.step_seconds.size(), row.warmup_steps);
  }
  return row.warmup_steps > 0 ? fmt::format("one step after {}", row.warmup_steps) : "the first step";
}

std::string timing_note(const BenchmarkReport& report, size_t width) {
  double spread = 0;
  for (const BenchmarkRow& row : report.rows) spread = std::max(spread, row.spread());
  return note(fmt::format("timed: {}{}.", by_run(report, timing_of),
                          spread > 0 ? fmt::format(", spread up to {:.1f} %", 100 * spread) : ""),
              width);
}

std::string leaf(const std::string& key) {
  return key.substr(key.rfind('.') + 1);
}

// Everything about one row.
std::string details(const BenchmarkRow& row, size_t width) {
  const std::string name = name_of(row);
  std::string text;
  if (!row.changes.empty()) {
    std::string list;
    for (const config::Change& change : row.changes) {
      list += fmt::format("{}{} {} -> {}", list.empty() ? "" : ", ", leaf(change.key), change.before, change.after);
    }
    text += note(fmt::format("{} changed: {}", name, list), width);
  }
  text += note(fmt::format("{} has {} layers: {}{}", name, row.layers, row.features,
                           row.local_shard > 1 ? fmt::format(", local shard 1/{}", row.local_shard) : ""),
               width);
  const std::string mtp = row.mtp_losses.empty() ? ""
                                                 : fmt::format(", of the extra layer {:.4f} -> {:.4f}",
                                                               row.mtp_losses.front(), row.mtp_losses.back());
  text += note(
      fmt::format("{} loss {:.4f} -> {:.4f}{} | {} | peak memory {} | {} on {} thread{}{}", name, row.losses.front(),
                  row.losses.back(), mtp, roofline_note(row), format_bytes(row.max_memory_bytes), row.device,
                  row.threads, row.threads == 1 ? "" : "s", row.processes == 1 ? "" : " of " + processes_of(row)),
      width);
  return text;
}

std::string published_note(const BenchmarkReport& report, size_t width) {
  using Published = config::Published;
  const std::string machines = by_published(report, [](const Published& p) { return p.machine.value_or(""); });
  if (machines.empty()) return {};
  std::string text =
      note(fmt::format("published: on {}, at full size; {}; a step is {}.", machines,
                       by_published(report, [](const Published& p) { return p.notes.value_or("no notes"); }),
                       by_published(report, [](const Published& p) { return p.step.value_or("not described"); })),
           width);
  std::vector<NamedText> corrections;
  for (const BenchmarkRow& row : report.rows) {
    if (!row.published || !row.published->columns.corrected_tflops || !first_of_its_model(report, row)) continue;
    const Published& p = row.published->columns;
    corrections.push_back(
        {fmt::format("{:g} of {} is {:g}", p.tflops_per_s_per_gpu.value_or(0), label_of(row), *p.corrected_tflops),
         p.corrected_because.value_or("counted otherwise")});
  }
  for (const NamedText& group : group_alike(corrections)) {
    text += note(fmt::format("published TFLOP/s: {} as the other rows are counted; what was printed was {}.",
                             group.name, group.text),
                 width);
  }
  return text;
}

// "EP 4 for 8": where a run at its own layout is not as published.
std::string differences(const BenchmarkRow& row) {
  const config::Published& p = row.published->columns;
  const Layout& l = row.layout;
  std::string list;
  const auto compare = [&](const char* column, int64_t here, const std::optional<int64_t>& there) {
    if (there && here != *there) list += fmt::format("{}{} {} for {}", list.empty() ? "" : ", ", column, here, *there);
  };
  compare("ranks", l.ranks, p.gpus);
  compare("GBS", l.gbs, p.gbs);
  compare("MBS", l.mbs, p.mbs);
  compare("LBS", l.lbs, p.lbs);
  compare("GA", l.ga, p.ga);
  compare("TP", l.tp, p.tp);
  compare("PP", l.pp, p.pp);
  compare("CP", l.cp, p.cp);
  compare("EP", l.ep, p.ep);
  compare("VP", l.vp, p.vp);
  compare("FSDP", l.fsdp, p.fsdp);
  return list;
}

std::string layout_note(const BenchmarkReport& report, size_t width) {
  std::string text;
  const auto own = std::ranges::find_if(report.rows, &BenchmarkRow::row_layout);
  if (own != report.rows.end()) {
    text +=
        note(fmt::format("layout: the file's own ranks, degrees and batch, each rank a thread{}; model and sequence of "
                         "{} size.",
                         own->processes == 1 ? "" : " of " + processes_of(*own), own->scale),
             width);
  }
  std::string missing;
  for (const BenchmarkRow& row : report.rows) {
    const bool has_own = std::ranges::any_of(
        report.rows, [&](const BenchmarkRow& other) { return other.row_layout && of_one_model(row, other); });
    if (!has_own && row.published) missing += " " + command_name(row);
    if (!row.row_layout || !row.published) continue;
    if (const std::string list = differences(row); !list.empty()) {
      text += note(fmt::format("{} is not as published: {}", name_of(row), list), width);
    }
  }
  if (report.layouts == "both" && !missing.empty()) {
    text += note(fmt::format("Their own layout takes longer: sluice bench{} --layout row", missing), width);
  }
  return text;
}

}  // namespace

std::string table_notes(const BenchmarkReport& report, size_t width) {
  std::string text = published_note(report, width) + layout_note(report, width);
  text += settings_note(report, width);
  text += timing_note(report, width);
  for (const BenchmarkRow& row : report.rows) {
    for (const config::Unavailable& each : row.unavailable) {
      text += note(fmt::format("{} asks for {} {}: {}", name_of(row), each.key, each.value, each.instead), width);
    }
    if (const std::string why = missing_mfu_note(row); !why.empty()) text += note(name_of(row) + " " + why, width);
    if (!row.grown.empty()) {
      text += note(fmt::format("{} memory grew beyond the plan: {}", name_of(row), describe(row.grown)), width);
    }
  }
  if (several_models(report)) {
    const BenchmarkRow& first = report.rows.front();
    const std::string one = command_name(first) + (report.layouts == "row" ? " --layout row" : "");
    text += note(fmt::format("Everything about one row, each changed value too: sluice bench {}", one), width);
  } else {
    for (const BenchmarkRow& row : report.rows) text += details(row, width);
  }
  const auto peak_of = [&](const BenchmarkRow& row) -> std::string {
    if (row.peak_stated) return "benchmark.peak_tflops";
    return fmt::format("a rank's share of the best measured in its precision until the row had ended (at the end {})",
                       describe_ceilings(report.machine));
  };
  text += note(fmt::format("tok/s, FLOP/s (model FLOPs, nothing recomputed counts) per rank; mem: of the fullest rank. "
                           "MFU in % of the peak beside it; here that is {}.",
                           by_run(report, peak_of)),
               width);
  const bool held_against_fp32 = std::ranges::any_of(report.rows, [](const BenchmarkRow& row) {
    return row.precision == "bf16" && row.peak_precision == "fp32" && !row.peak_stated;
  });
  if (held_against_fp32) {
    text += note("bf16 is held against the fp32 peak: the processor has no instruction for products of bf16.", width);
  }
  if (const std::string varied = peak_note(report.machine); !varied.empty()) text += note(varied, width);
  return text;
}

}  // namespace sluice::cli
