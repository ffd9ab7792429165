#include "cli/bench_table.h"

#include <fmt/format.h>

#include <cmath>

#include "base/text.h"
#include "cli/terminal.h"

namespace sluice::cli {
namespace {

constexpr size_t page = 100;
constexpr const char* columns =
    "{:<3} {:<13} {:>5} {:>4} {:>3} {:>3} {:>3} {:>4} {:>2} {:>2} {:>2} {:>2} {:>2} {:>4} {:>6} {:>7} {:>7} {:>5} "
    "{:>5}\n";

struct Figures {
  std::string step_s = "-";
  std::string tokens = "-";
  std::string gflops = "-";
  std::string mfu = "-";
  std::string memory = "-";
};

std::string count(double value) {
  return format_count(std::llround(value));
}

// Four figures: "0.0123", "1.923", "21.77".
std::string seconds(double value) {
  return fmt::format("{:.{}f}", value, value < 1 ? 4 : value < 10 ? 3 : 2);
}

std::string gflops(double value) {
  return value < 999.5 ? fmt::format("{:.1f}", value) : count(value);
}

// "2.95M", "1.10G".
std::string short_bytes(uint64_t bytes) {
  const std::string text = format_bytes(bytes);
  const size_t unit = text.find(' ');
  return text.substr(0, unit) + text.substr(unit + 1, 1);
}

std::string line(const std::string& row, const std::string& model, const Layout& l, const Figures& f) {
  return fmt::format(fmt::runtime(columns), row, model.substr(0, 13), l.ranks, l.gbs, l.mbs, l.lbs, l.ga, l.seq_len,
                     l.tp, l.pp, l.cp, l.ep, l.vp > 0 ? std::to_string(l.vp) : "-", l.fsdp, f.step_s, f.tokens,
                     f.gflops, f.mfu, f.memory);
}

Figures published_figures(const config::Published& published, std::optional<double> peak_tflops) {
  Figures f;
  if (published.step_time_s) f.step_s = seconds(*published.step_time_s);
  if (published.tokens_per_s_per_gpu) f.tokens = count(*published.tokens_per_s_per_gpu);
  if (published.tflops_per_s_per_gpu) {
    f.gflops = gflops(1000 * *published.tflops_per_s_per_gpu);
    if (peak_tflops) f.mfu = fmt::format("{:.1f}", 100 * *published.tflops_per_s_per_gpu / *peak_tflops);
  }
  return f;
}

std::string name_of(const BenchmarkRow& row) {
  return row.row.empty() ? row.model : row.row;
}

// "4 layers, local shard 1/8": how much of the model it is.
std::string part_of_model(const BenchmarkRow& row) {
  std::string text = fmt::format("{} layers", row.layers);
  if (row.local_shard > 1) text += fmt::format(", local shard 1/{}", row.local_shard);
  return text;
}

std::string optimizer_of(const BenchmarkRow& row) {
  if (row.optimizer_state_dtype == "none") return "no optimizer step";
  return fmt::format("optimizer state {}, {}", row.optimizer_state_dtype,
                     row.optimizer_state_dtype == "bf16" ? "no master" : "fp32 master");
}

// "model.config.hidden_size" -> "hidden_size"
std::string leaf(const std::string& key) {
  return key.substr(key.rfind('.') + 1);
}

std::string balance_of(const BenchmarkRow& row) {
  return row.gate_noise > 0 ? fmt::format("{} with noise {:g}", row.balance, row.gate_noise) : row.balance;
}

}  // namespace

std::string table_head() {
  return fmt::format(fmt::runtime(columns), "row", "model", "ranks", "GBS", "MBS", "LBS", "GA", "seq", "TP", "PP", "CP",
                     "EP", "VP", "FSDP", "s/step", "tok/s", "GFLOP/s", "MFU %", "mem");
}

std::string table_lines(const BenchmarkRow& row) {
  const Figures ours{.step_s = seconds(row.median_seconds()),
                     .tokens = count(row.tokens_per_s_per_rank()),
                     .gflops = gflops(1000 * row.model_tflops_per_rank()),
                     .mfu = row.mfu() > 1 ? "?" : fmt::format("{:.1f}", 100 * row.mfu()),
                     .memory = short_bytes(row.max_memory_bytes)};
  std::string text = line(row.row, row.model, row.layout, ours);
  if (row.published) {
    text += line("", "published", row.published->layout,
                 published_figures(row.published->figures, row.published->peak_tflops));
  }
  return text;
}

std::string table_notes(const BenchmarkRow& row, const std::vector<config::Change>& changes) {
  const std::string name = name_of(row);
  std::string text;
  if (row.published) {
    const config::Published& published = row.published->figures;
    text += wrap(fmt::format("{} published: another machine ({} x {}){}", name, published.gpus.value_or(0),
                             published.machine.value_or("GPU"),
                             row.scale == "full" ? "." : fmt::format(" and another size (here: {}).", row.scale)),
                 page, 3) +
            "\n";
    if (published.tflops_per_s_per_gpu && published.printed_tflops) {
      text += wrap(fmt::format("{} published {} GFLOP/s, printed as {}: {}", name,
                               gflops(1000 * *published.tflops_per_s_per_gpu), gflops(1000 * *published.printed_tflops),
                               published.printed_because.value_or("counted otherwise")),
                   page, 3) +
              "\n";
    }
  }
  for (const config::Unavailable& each : row.unavailable) {
    text += wrap(fmt::format("{} asks for {} {}: {}", name, each.key, each.value, each.instead), page, 3) + "\n";
  }
  if (!changes.empty()) {
    std::string list;
    for (const config::Change& change : changes) {
      list += fmt::format("{}{} {} -> {}", list.empty() ? "" : ", ", leaf(change.key), change.before, change.after);
    }
    text += wrap(fmt::format("{} changed: {}", name, list), page, 3) + "\n";
  }
  text += wrap(fmt::format("{} has {}", name, row.features), page, 3) + "\n";
  text += wrap(fmt::format("{} {} | balance {} (load {:.2f}) | {} | recompute {} | peak memory {} | "
                           "{} on {} thread{} | median of {} after {}, spread {:.1f} %",
                           name, part_of_model(row), balance_of(row), row.load_factor, optimizer_of(row), row.recompute,
                           format_bytes(row.max_memory_bytes), row.device, row.threads, row.threads == 1 ? "" : "s",
                           row.step_seconds.size(), row.warmup_steps, 100 * row.spread()),
               page, 3) +
          "\n";
  const std::string mtp = row.mtp_losses.empty() ? ""
                                                 : fmt::format(" | extra layer {:.4f} -> {:.4f}",
                                                               row.mtp_losses.front(), row.mtp_losses.back());
  text += wrap(fmt::format("{} loss {:.4f} -> {:.4f}{} | {}", name, row.losses.front(), row.losses.back(), mtp,
                           roofline_note(row)),
               page, 3) +
          "\n";
  if (const std::string why = missing_mfu_note(row); !why.empty()) text += wrap(name + " " + why, page, 3) + "\n";
  if (!row.grown.empty()) {
    text += wrap(fmt::format("{} memory grew beyond the plan: {}", name, describe(row.grown)), page, 3) + "\n";
  }
  return text;
}

std::string table_legend() {
  return "tok/s, GFLOP/s (model FLOPs) and MFU per rank; mem: peak of the fullest rank, in MiB or GiB.\n";
}

}  // namespace sluice::cli
