#include "cli/bench_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "base/text.h"
#include "cli/bench_runs.h"

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

std::string render(const BenchmarkReport& report, size_t width) {
  std::string text = table_head(report, width);
  for (size_t i = 0; i < report.rows.size(); ++i) text += table_lines(report, i, width);
  return text + "\n" + table_notes(report, width);
}

}  // namespace sluice::cli
