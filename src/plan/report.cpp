#include "plan/report.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>

#include "base/text.h"
#include "machine/machine_info.h"
#include "model/family.h"
#include "trainer/layout.h"

namespace sluice {

namespace {

constexpr size_t kLabel = 13;
constexpr size_t kFigure = 11;
constexpr size_t kSpaces = 7;  // around them, in a half of the table
constexpr size_t kMostWays = 6;

struct Line {
  std::string label;
  double value = 0;
  std::string figure;
};

// "█████▌": `value` of `most` in `width` columns.
std::string bar(double value, double most, size_t width) {
  if (!(most > 0) || !(value > 0)) return {};
  const auto eighths = static_cast<size_t>(std::lround(value / most * 8 * static_cast<double>(width)));
  constexpr const char* kParts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  std::string text;
  for (size_t i = 0; i < eighths / 8; ++i) text += "█";
  return text + kParts[eighths % 8];
}

std::string padded(const std::string& text, size_t width) {
  const size_t used = columns_of(text);
  return used < width ? text + std::string(width - used, ' ') : text;
}

// A table of labelled bars, of `columns` at most, one text line each.
std::vector<std::string> bars(const std::vector<Line>& lines, size_t columns) {
  double most = 0;
  for (const Line& line : lines) most = std::max(most, line.value);
  std::vector<std::string> text;
  for (const Line& line : lines) {
    text.push_back(
        fmt::format("{:<{}} {:>{}}  {}", line.label, kLabel, line.figure, kFigure, bar(line.value, most, columns)));
  }
  return text;
}

std::vector<Line> memory_lines(const Plan& plan) {
  const MemoryLedger& ledger = plan.fullest().rank.ledger;
  std::vector<Line> lines;
  for (size_t k = 0; k < kMemoryKinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    const size_t bytes = ledger.at_peak(kind);
    if (bytes > 0) lines.push_back({std::string(name_of(kind)), static_cast<double>(bytes), format_bytes(bytes)});
  }
  const size_t connected = plan.fullest().communicators;
  if (connected > 0) lines.push_back({"NCCL", static_cast<double>(connected), format_bytes(connected)});
  return lines;
}

std::vector<Line> time_lines(const Plan& plan) {
  const StepTime& t = plan.time;
  std::vector<Line> lines;
  // What nobody would see in the sum is left out.
  const auto add = [&](const std::string& label, double seconds) {
    if (seconds > 5e-4 * plan.step_seconds) lines.push_back({label, seconds, format_duration(seconds)});
  };
  add("projections", t.projections);
  add("attention", t.attention);
  add("experts", t.experts);
  add("head", t.head);
  add("norms, moves", t.rest);
  for (const auto& [axis, seconds] : t.exposed) add(axis + " exposed", seconds);
  add("bubble", t.bubble);
  add("optimizer", t.optimizer);
  return lines;
}

std::string layout_text(const Plan& plan) {
  const Layout l = layout_of(plan.spec);
  const ParamCount count = param_count(plan.spec.model);
  std::string text = fmt::format("{}, {} parameters, {} rank{}: ", plan.spec.model.name,
                                 format_magnitude(static_cast<double>(count.total)), l.ranks, l.ranks == 1 ? "" : "s");
  if (l.pp > 1) text += fmt::format("pp {}{} x ", l.pp, l.vp > 1 ? fmt::format(" (vp {})", l.vp) : "");
  text += fmt::format("dp {}, ep {}", plan.spec.mesh.dp(), l.ep);
  if (l.ep > 1) {
    const int64_t each = plan.spec.model.num_experts / l.ep;
    text += fmt::format(" ({} expert{} a rank)", each, each == 1 ? "" : "s");
  }
  if (const int64_t shard = plan.spec.local_shard; shard > 1) {
    text += fmt::format(", local shard 1/{} ({} of {} experts)", shard, plan.spec.model.num_experts / shard,
                        plan.spec.model.num_experts);
  }
  return text + fmt::format(", fsdp {}", l.fsdp);
}

std::string optimizer_state(const RunSpec& spec) {
  return spec.optimize ? std::string(name_of(spec.optimizer.state_dtype)) : "none";
}

std::string settings_text(const Plan& plan) {
  const RunSpec& spec = plan.spec;
  const Layout l = layout_of(spec);
  std::string text = fmt::format("GBS {}, LBS {}, MBS {}, seq {}, {}, recompute {}, moments {}", l.gbs, l.lbs, l.mbs,
                                 l.seq_len, name_of(spec.dtype), describe(spec.recompute), optimizer_state(spec));
  if (spec.mesh.pp > 1) text += fmt::format(", {}", config::word(spec.schedule));
  return text;
}

std::string way_text(const WayOut& way) {
  const double percent = (way.time_ratio - 1) * 100;
  return fmt::format("`{}` frees {} for {:+.0f} % time{}", way.change,
                     format_bytes(static_cast<uint64_t>(std::max(0.0, way.freed_bytes))), percent,
                     way.fits ? fmt::format(": fits with {}", format_bytes(way.peak_bytes))
                              : fmt::format(": {}, does not fit yet", format_bytes(way.peak_bytes)));
}

// A sentence below the table, or what belongs to one; `indent` before it.
void add_sentence(std::string& text, const std::string& sentence, size_t width, size_t indent = 2) {
  text += wrap(std::string(indent, ' ') + sentence, width, 4) + "\n";
}

// "340 TFLOP/s", "117 GFLOP/s".
std::string rate(double flops_per_s) {
  if (flops_per_s >= 1e12) return fmt::format("{:.0f} TFLOP/s", flops_per_s * 1e-12);
  return fmt::format("{:.{}f} GFLOP/s", flops_per_s * 1e-9, flops_per_s < 1e10 ? 2 : 0);
}

// "550 GFLOP/s fp32"
std::string peak_text(const Plan& plan) {
  const Roof& roof = plan.profile.device.roof;
  return fmt::format("{} {}", rate(roof.peak(plan.spec.dtype)), precision_name(roof.peak_type(plan.spec.dtype)));
}

// Memory to the left, time to the right, their sums in the last line.
std::string table(const Plan& plan, size_t width) {
  const size_t column = width / 2 - 1, bar_columns = column - kLabel - kFigure - kSpaces;
  const StagePlan& fullest = plan.fullest();
  const bool pipelined = plan.spec.mesh.pp > 1;
  std::string title = "memory";
  if (plan.spec.mesh.world > 1) {
    title += fmt::format(", fullest rank {} of {}", fullest.rank.rank, plan.spec.mesh.world);
  }
  if (pipelined) title += fmt::format(" (stage {})", fullest.stage);
  constexpr std::string_view spare = "fullest ";
  if (columns_of(title) + 2 > column) title.erase(title.find(spare), spare.size());
  std::vector<std::string> left = bars(memory_lines(plan), bar_columns);
  std::vector<std::string> right = bars(time_lines(plan), bar_columns);
  left.resize(std::max(left.size(), right.size()));
  right.resize(left.size());
  left.push_back(fmt::format("{:<{}} {:>{}}", "peak", kLabel, format_bytes(plan.peak_bytes()), kFigure));
  right.push_back(fmt::format("{:<{}} {:>{}}", "total", kLabel, format_duration(plan.step_seconds), kFigure));

  std::string text =
      " " + padded(title, column - 1) + (pipelined ? "step time, mean of the stages" : "step time") + "\n";
  for (size_t i = 0; i < left.size(); ++i) {
    std::string line = "   " + padded(left[i], column - 1) + right[i];
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

void add_peak(std::string& text, const MemoryPeak& peak, size_t width) {
  if (peak.action.empty()) return;
  std::string sentence = "peak reached at: " + peak.action;
  if (!peak.place.empty()) sentence += " (" + peak.place + ")";
  for (size_t i = 0; i < std::min<size_t>(3, peak.largest.size()); ++i) {
    sentence += fmt::format("{}{} {}", i == 0 ? "; largest: " : ", ", peak.largest[i].name,
                            format_bytes(peak.largest[i].bytes));
  }
  add_sentence(text, sentence, width);
}

void add_advice(std::string& text, const Plan& plan, const Advice& advice, size_t width) {
  if (!advice.ways_out.empty()) {
    text += "  to make it fit:\n";
    const size_t shown = std::min(kMostWays, advice.ways_out.size());
    for (size_t i = 0; i < shown; ++i) add_sentence(text, way_text(advice.ways_out[i]), width, 4);
    if (shown < advice.ways_out.size() && !advice.ways_out.front().fits) {
      add_sentence(text, way_text(advice.ways_out.back()), width, 4);
    }
  } else if (!plan.fits()) {
    text += "  no single setting makes it fit: use more ranks\n";
  }
  if (advice.faster) {
    add_sentence(text,
                 fmt::format("`{}` fits too, with {}, and takes {:.0f} % less time", advice.faster->change,
                             format_bytes(advice.faster->peak_bytes), (1 - advice.faster->time_ratio) * 100),
                 width);
  }
  if (advice.next_best) {
    const OtherLayout& other = *advice.next_best;
    const bool better = plan.fits() && other.plan.step_seconds < plan.step_seconds;
    add_sentence(text,
                 fmt::format("{}: `{}`, {} tok/s/rank, {} ({})",
                             !plan.fits() ? "best layout that fits"
                             : better     ? "a faster layout"
                                          : "next best layout",
                             other.change, format_count(std::lround(other.plan.tokens_per_s_per_rank)),
                             format_bytes(other.plan.peak_bytes()), other.because),
                 width);
  }
}

nlohmann::ordered_json json_of(const StepTime& time) {
  nlohmann::ordered_json exposed = nlohmann::ordered_json::object();
  for (const auto& [axis, seconds] : time.exposed) exposed[axis] = seconds;
  return {{"projections", time.projections},
          {"attention", time.attention},
          {"experts", time.experts},
          {"head", time.head},
          {"rest", time.rest},
          {"exposed", exposed},
          {"bubble", time.bubble},
          {"optimizer", time.optimizer}};
}

nlohmann::ordered_json json_of(const WayOut& way) {
  return {{"change", way.change},
          {"peak_bytes", way.peak_bytes},
          {"freed_bytes", way.freed_bytes},
          {"time_ratio", way.time_ratio},
          {"fits", way.fits}};
}

nlohmann::ordered_json json_of(const StagePlan& stage) {
  nlohmann::ordered_json memory = nlohmann::ordered_json::object();
  for (size_t k = 0; k < kMemoryKinds; ++k) {
    const auto kind = static_cast<MemoryKind>(k);
    memory[std::string(name_of(kind))] = stage.rank.ledger.at_peak(kind);
  }
  memory["nccl"] = stage.communicators;
  nlohmann::ordered_json arenas = nlohmann::ordered_json::object();
  for (const auto& [name, bytes] : stage.rank.sizes) arenas[name] = bytes;
  nlohmann::ordered_json ops = nlohmann::ordered_json::object();
  for (const auto& [op, seconds] : stage.rank.op_seconds) ops[std::string(op.name)] = seconds;
  return {{"stage", stage.stage}, {"rank", stage.rank.rank},      {"peak_bytes", stage.bytes()}, {"memory", memory},
          {"arenas", arenas},     {"peak_at", stage.peak.action}, {"time", json_of(stage.time)}, {"ops", ops}};
}

}  // namespace

Advice advise(const Config& config, const Plan& plan, Pool& pool) {
  Advice advice;
  if (!plan.fits()) {
    advice.ways_out = ways_out(config, plan, pool);
  } else {
    advice.faster = faster_setting(config, plan, pool);
  }
  if (plan.spec.mesh.world > 1) advice.next_best = next_best_layout(config, plan, pool);
  return advice;
}

std::string render(const Plan& plan, const Advice& advice, size_t width) {
  std::string text;
  for (const std::string& line :
       {layout_text(plan), settings_text(plan), fmt::format("{}: {}", plan.profile.name, plan.profile.description)}) {
    text += wrap(line, width, 2) + "\n";
  }
  text += "\n" + table(plan, width) + "\n";
  const auto add = [&](const std::string& sentence) { add_sentence(text, sentence, width); };
  add(fmt::format("{}: {} of {} usable", plan.fits() ? "fits" : "does not fit", format_bytes(plan.peak_bytes()),
                  format_bytes(plan.profile.usable)));
  add(fmt::format("{} tok/s/rank, {}/rank, MFU {} of {}", format_count(std::lround(plan.tokens_per_s_per_rank)),
                  rate(plan.model_tflops_per_rank * 1e12), format_share(plan.mfu, 1, "above the peak"),
                  peak_text(plan)));
  add_peak(text, plan.fullest().peak, width);
  if (plan.spec.load_varies()) {
    add(fmt::format("room for {:g} x the balanced load (memory.load_factor); more is grown and reported",
                    plan.spec.load_factor));
  }
  add_advice(text, plan, advice, width);
  return text;
}

std::string to_json(const Plan& plan, const Advice& advice) {
  const Layout l = layout_of(plan.spec);
  nlohmann::ordered_json json = {
      {"model", plan.spec.model.name},
      {"profile", plan.profile.name},
      {"ranks", l.ranks},
      {"gbs", l.gbs},
      {"mbs", l.mbs},
      {"lbs", l.lbs},
      {"ga", l.ga},
      {"seq_len", l.seq_len},
      {"tp", l.tp},
      {"pp", l.pp},
      {"cp", l.cp},
      {"ep", l.ep},
      {"vp", l.vp},
      {"fsdp", l.fsdp},
      {"dtype", name_of(plan.spec.dtype)},
      {"recompute", describe(plan.spec.recompute)},
      {"optimizer_state_dtype", optimizer_state(plan.spec)},
      {"local_shard", plan.spec.local_shard},
      {"peak_bytes", plan.peak_bytes()},
      {"usable_bytes", plan.profile.usable},
      {"fits", plan.fits()},
      {"step_time_s", plan.step_seconds},
      {"tokens_per_s_per_gpu", plan.tokens_per_s_per_rank},
      {"model_tflops_per_s_per_gpu", plan.model_tflops_per_rank},
      {"peak_precision", precision_name(plan.profile.device.roof.peak_type(plan.spec.dtype))},
      {"peak_tflops", plan.profile.device.roof.peak(plan.spec.dtype) * 1e-12},
      {"mfu", plan.mfu},
      {"time", json_of(plan.time)}};
  for (const StagePlan& stage : plan.stages) json["stages"].push_back(json_of(stage));
  json["ways_out"] = nlohmann::ordered_json::array();
  for (const WayOut& way : advice.ways_out) json["ways_out"].push_back(json_of(way));
  if (advice.faster) json["faster"] = json_of(*advice.faster);
  if (advice.next_best) {
    json["next_best"] = {{"change", advice.next_best->change},
                         {"tokens_per_s_per_gpu", advice.next_best->plan.tokens_per_s_per_rank},
                         {"peak_bytes", advice.next_best->plan.peak_bytes()},
                         {"because", advice.next_best->because}};
  }
  // Names from outside need not be UTF-8.
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace sluice
