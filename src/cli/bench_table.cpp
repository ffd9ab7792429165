#include "cli/bench_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "base/text.h"
#include "cli/terminal.h"

namespace sluice::cli {
namespace {

struct Column {
  const char* head;
  size_t width;
};

// As in the published table; what is measured follows.
constexpr std::array<Column, 14> kLayoutColumns{{{"", 9},
                                                 {"prec", 4},
                                                 {"ranks", 5},
                                                 {"GBS", 4},
                                                 {"MBS", 3},
                                                 {"LBS", 3},
                                                 {"GA", 2},
                                                 {"seq", 4},
                                                 {"TP", 2},
                                                 {"PP", 2},
                                                 {"CP", 2},
                                                 {"EP", 2},
                                                 {"VP", 2},
                                                 {"FSDP", 4}}};
constexpr std::array<Column, 5> kFigureColumns{
    {{"s/step", 6}, {"tok/s", 6}, {"FLOP/s", 6}, {"MFU/peak", 10}, {"mem", 5}}};
constexpr size_t kIndent = 1;
// Where what belongs to a line continues below it.
constexpr size_t kContinued = kIndent + kLayoutColumns[0].width + 1;
constexpr size_t kOneLine = 100;

struct NamedText {
  std::string name;
  std::string text;
};

// One entry for each text, in the order they come, with the names of all that have it; empty texts are left out.
std::vector<NamedText> group_alike(const std::vector<NamedText>& texts) {
  std::vector<NamedText> groups;
  for (const NamedText& each : texts) {
    if (each.text.empty()) continue;
    const auto same = std::ranges::find(groups, each.text, &NamedText::text);
    if (same == groups.end()) {
      groups.push_back(each);
    } else if (!each.name.empty()) {
      same->name += ", " + each.name;
    }
  }
  return groups;
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

template <size_t N>
std::string cells(const std::array<Column, N>& columns, const std::array<std::string, N>& texts) {
  std::string line;
  for (size_t i = 0; i < N; ++i) {
    const bool left = columns[i].head[0] == '\0';  // a name
    line += i > 0 ? " " : "";
    line +=
        left ? fmt::format("{:<{}}", texts[i], columns[i].width) : fmt::format("{:>{}}", texts[i], columns[i].width);
  }
  return line;
}

using LayoutCells = std::array<std::string, kLayoutColumns.size()>;
using FigureCells = std::array<std::string, kFigureColumns.size()>;

std::string line_of(const LayoutCells& layout, const FigureCells& figures, size_t width) {
  const std::string gap = width >= kOneLine ? std::string(" ") : "\n" + std::string(kContinued, ' ');
  return std::string(kIndent, ' ') + cells(kLayoutColumns, layout) + gap + cells(kFigureColumns, figures) + "\n";
}

template <size_t N>
std::array<std::string, N> heads(const std::array<Column, N>& columns) {
  std::array<std::string, N> texts;
  std::transform(columns.begin(), columns.end(), texts.begin(), [](const Column& c) { return c.head; });
  return texts;
}

// A text that belongs to the line above it.
std::string continued(const std::string& text, size_t width) {
  if (text.empty()) return {};
  return std::string(kContinued, ' ') + wrap(text, width - kContinued, kContinued) + "\n";
}

std::string count(double value) {
  return value < 99999.5 ? format_count(std::llround(value)) : fmt::format("{:.0f}K", value * 1e-3);
}

// Of a measured step, four figures: "0.0123", "1.923", "21.77".
std::string seconds(double value) {
  return fmt::format("{:.{}f}", value, value < 1 ? 4 : value < 10 ? 3 : value < 100 ? 2 : 1);
}

// As printed: two or three decimals.
std::string published_seconds(double value) {
  std::string text = fmt::format("{:.3f}", value);
  if (text.back() == '0') text.pop_back();
  return text;
}

// Three figures: "95.0G", "216T".
std::string rate(double flops) {
  constexpr std::array units{"", "K", "M", "G", "T", "P"};
  size_t unit = 0;
  for (; flops >= 999.5 && unit + 1 < units.size(); ++unit) flops *= 1e-3;
  return fmt::format("{:.{}f}{}", flops, flops < 9.995 ? 2 : flops < 99.95 ? 1 : 0, units[unit]);
}

// "2.95M", "1.10G".
std::string short_bytes(uint64_t bytes) {
  const std::string text = format_bytes(bytes);
  const size_t unit = text.find(' ');
  return text.substr(0, unit) + text.substr(unit + 1, 1);
}

// No share exceeds its whole: of a peak that was measured too low there is none, and a note says so.
std::string mfu(double share, double peak_flops) {
  return fmt::format("{}/{}", share > 1 ? "?" : fmt::format("{:.1f}", 100 * share), rate(peak_flops));
}

template <class T>
std::string or_dash(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "-";
}

std::string published_lines(const PublishedRow& published, size_t width) {
  const config::Published& p = published.columns;
  const LayoutCells layout{"published",    or_dash(p.precision), or_dash(p.gpus),    or_dash(p.gbs), or_dash(p.mbs),
                           or_dash(p.lbs), or_dash(p.ga),        or_dash(p.seq_len), or_dash(p.tp),  or_dash(p.pp),
                           or_dash(p.cp),  or_dash(p.ep),        or_dash(p.vp),      or_dash(p.fsdp)};
  FigureCells figures{"-", "-", "-", "-", "-"};
  if (p.step_time_s) figures[0] = published_seconds(*p.step_time_s);
  if (p.tokens_per_s_per_gpu) figures[1] = count(*p.tokens_per_s_per_gpu);
  if (p.tflops_per_s_per_gpu) {
    figures[2] = rate(*p.tflops_per_s_per_gpu * 1e12);
    if (published.peak_tflops) {
      figures[3] = mfu(*p.tflops_per_s_per_gpu / *published.peak_tflops, *published.peak_tflops * 1e12);
    }
  }
  return line_of(layout, figures, width) + continued(p.kernels.value_or(""), width);
}

// What ran in the place of the published kernels, those alike together: "own AVX-512: attention (causal), linear,
// experts | no exchange at EP 1".
std::string describe_kernels(const BenchmarkRow& row) {
  std::vector<NamedText> parts;
  for (const KernelUse& use : row.kernels) {
    // Attention says after a colon which masks a kernel did, and parts them by semicolons.
    for (size_t begin = 0; begin < use.ours.size();) {
      const size_t end = std::min(use.ours.find("; ", begin), use.ours.size());
      const std::string one = use.ours.substr(begin, end - begin);
      const size_t colon = one.find(": ");
      const std::string masks = colon == std::string::npos ? "" : fmt::format(" ({})", one.substr(colon + 2));
      parts.push_back({use.part + masks, one.substr(0, colon)});
      begin = end + 2;
    }
  }
  std::string text;
  for (const NamedText& group : group_alike(parts)) {
    text += text.empty() ? "" : " | ";
    // How tokens travel is no kernel of a part.
    text += group.name == "dispatcher" ? group.text : fmt::format("{}: {}", group.text, group.name);
  }
  return text;
}

std::string measured_lines(const BenchmarkRow& row, size_t width) {
  const Layout& l = row.layout;
  const auto text = [](int64_t value) { return std::to_string(value); };
  const LayoutCells layout{row.row_layout ? "layout" : row.scale,
                           row.precision,
                           text(l.ranks),
                           text(l.gbs),
                           text(l.mbs),
                           text(l.lbs),
                           text(l.ga),
                           text(l.seq_len),
                           text(l.tp),
                           text(l.pp),
                           text(l.cp),
                           text(l.ep),
                           l.vp > 0 ? text(l.vp) : "-",
                           text(l.fsdp)};
  const FigureCells figures{seconds(row.median_seconds()), count(row.tokens_per_s_per_rank()),
                            rate(row.model_tflops_per_rank() * 1e12), mfu(row.mfu(), row.peak_tflops * 1e12),
                            short_bytes(row.max_memory_bytes)};
  return line_of(layout, figures, width) + continued(describe_kernels(row), width);
}

std::string label_of(const BenchmarkRow& row) {
  return row.row.empty() ? row.model : row.row;
}

// What the command line takes for it.
std::string command_name(const BenchmarkRow& row) {
  return row.row.empty() ? row.config : row.row;
}

bool of_one_model(const BenchmarkRow& a, const BenchmarkRow& b) {
  return a.config == b.config && a.row == b.row && a.model == b.model;
}

bool first_of_its_model(const BenchmarkReport& report, const BenchmarkRow& row) {
  const auto same = [&](const BenchmarkRow& other) { return of_one_model(row, other); };
  return &*std::ranges::find_if(report.rows, same) == &row;
}

bool several_models(const BenchmarkReport& report) {
  return std::ranges::any_of(report.rows,
                             [&](const BenchmarkRow& row) { return !of_one_model(row, report.rows.front()); });
}

// --- notes ------------------------------------------------------------------------------------------------------

std::string note(const std::string& text, size_t width) {
  return wrap(text, width, 2) + "\n";
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
  text += note(fmt::format("{} loss {:.4f} -> {:.4f}{} | {} | peak memory {} | {} on {} thread{}", name,
                           row.losses.front(), row.losses.back(), mtp, roofline_note(row),
                           format_bytes(row.max_memory_bytes), row.device, row.threads, row.threads == 1 ? "" : "s"),
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
        note(fmt::format("layout: the file's own ranks, degrees and batch, each rank a thread; model and sequence of "
                         "{} size.",
                         own->scale),
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

std::string table_head(const BenchmarkReport& report, size_t width) {
  return note(fmt::format("sluice {} ({})  |  {}", report.version, report.commit, describe(report.machine)), width) +
         "\n" + line_of(heads(kLayoutColumns), heads(kFigureColumns), width);
}

std::string table_lines(const BenchmarkReport& report, size_t index, size_t width) {
  const BenchmarkRow& row = report.rows.at(index);
  std::string text;
  if (first_of_its_model(report, row)) {
    text += note(row.row.empty() ? row.model : fmt::format("{} {}", row.row, row.model), width);
    if (row.published) text += published_lines(*row.published, width);
  }
  return text + measured_lines(row, width);
}

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
    return fmt::format("a rank's share of the best measured until the row had ended (at the end {})",
                       describe_ceilings(report.machine));
  };
  text += note(fmt::format("tok/s, FLOP/s (model FLOPs, nothing recomputed counts) per rank; mem: of the fullest rank. "
                           "MFU in % of the peak beside it; here that is {}.",
                           by_run(report, peak_of)),
               width);
  if (const std::string varied = peak_note(report.machine); !varied.empty()) text += note(varied, width);
  return text;
}

std::string render(const BenchmarkReport& report, size_t width) {
  std::string text = table_head(report, width);
  for (size_t i = 0; i < report.rows.size(); ++i) text += table_lines(report, i, width);
  return text + "\n" + table_notes(report, width);
}

}  // namespace sluice::cli
