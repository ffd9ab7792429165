#include "training/records.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

// Both directions go through one list of fields (`describe` below): a writer fills an object, a reader takes from it.
class Writer {
 public:
  explicit Writer(Json& json) : json_(json) {}

  template <class T>
  void operator()(const char* name, const T& value) {
    json_[name] = value;
  }
  template <class T>
  void operator()(const char* name, const std::optional<T>& value) {
    json_[name] = value ? Json(*value) : Json(nullptr);
  }
  // null stands for `none`.
  template <class T>
  void or_null(const char* name, const T& value, const T& none) {
    json_[name] = value == none ? Json(nullptr) : Json(value);
  }
  // Left out where it is `usual`.
  template <class T>
  void or_absent(const char* name, const T& value, const T& usual) {
    if (value != usual) json_[name] = value;
  }
  // What files of earlier versions do not have stands for `before`.
  template <class T>
  void later(const char* name, const T& value, const T& /*before*/) {
    json_[name] = value;
  }
  // Follows from the fields: written for those who read the file.
  template <class T>
  void derived(const char* name, const T& value) {
    json_[name] = value;
  }
  template <class T, class Describe>
  void object(const char* name, T& value, Describe describe) {
    Json inner = Json::object();
    Writer writer(inner);
    describe(writer, value);
    json_[name] = std::move(inner);
  }
  template <class T, class Describe>
  void objects(const char* name, std::vector<T>& list, Describe describe) {
    Json items = Json::array();
    for (T& each : list) {
      Json item = Json::object();
      Writer writer(item);
      describe(writer, each);
      items.push_back(std::move(item));
    }
    json_[name] = std::move(items);
  }
  // An object whose keys are the parts.
  void kernels(const char* name, const std::vector<KernelUse>& list) {
    Json by_part = Json::object();
    for (const KernelUse& use : list) by_part[use.part] = use.ours;
    json_[name] = std::move(by_part);
  }
  template <class T, class Describe>
  void object_or_null(const char* name, std::optional<T>& value, Describe describe) {
    json_[name] = nullptr;
    if (value) object(name, *value, describe);
  }

 private:
  Json& json_;
};

class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {}

  template <class T>
  void operator()(const char* name, T& value) {
    json_.at(name).get_to(value);
  }
  template <class T>
  void operator()(const char* name, std::optional<T>& value) {
    const Json& found = json_.at(name);
    value = found.is_null() ? std::nullopt : std::optional<T>(found.get<T>());
  }
  template <class T>
  void or_null(const char* name, T& value, const T& none) {
    const Json& found = json_.at(name);
    value = found.is_null() ? none : found.get<T>();
  }
  template <class T>
  void or_absent(const char* name, T& value, const T& usual) {
    value = json_.value(name, usual);
  }
  template <class T>
  void later(const char* name, T& value, const T& before) {
    or_absent(name, value, before);
  }
  template <class T>
  void derived(const char* /*name*/, const T& /*value*/) {}
  template <class T, class Describe>
  void object(const char* name, T& value, Describe describe) {
    Reader reader(json_.at(name));
    describe(reader, value);
  }
  template <class T, class Describe>
  void objects(const char* name, std::vector<T>& list, Describe describe) {
    for (const Json& item : json_.at(name)) {
      Reader reader(item);
      describe(reader, list.emplace_back());
    }
  }
  void kernels(const char* name, std::vector<KernelUse>& list) {
    for (const auto& [part, ours] : json_.at(name).items()) list.push_back({part, ours.get<std::string>()});
  }
  template <class T, class Describe>
  void object_or_null(const char* name, std::optional<T>& value, Describe describe) {
    if (!json_.at(name).is_null()) object(name, value.emplace(), describe);
  }

 private:
  const Json& json_;
};

// The type of that name, of those a peak is measured in.
DType dtype_named(const std::string& name) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    if (name_of(dtype) == name) return dtype;
  }
  throw user_error("a peak of type {}, which there is none of", name);
}

constexpr auto describe_machine = [](auto& v, MachineInfo& machine) {
  v("cpu", machine.cpu);
  v("cores", machine.cores);
  v("isa", machine.isa);
  v("memory_bytes", machine.memory_bytes);
  v("os", machine.os);
  v("compiler", machine.compiler);
  v.or_null("gpu", machine.gpu, std::string());
  v.or_null("libraries", machine.libraries, std::string());
  std::string dtype(name_of(machine.peak_dtype));
  v("peak_dtype", dtype);
  machine.peak_dtype = dtype_named(dtype);
  v("peak_gflops", machine.peak_gflops);
  v("peak_measurements_gflops", machine.peaks_gflops);
  v.or_absent("bf16_peak_gflops", machine.bf16_peak_gflops, 0.0);
  v.or_absent("bf16_peak_measurements_gflops", machine.bf16_peaks_gflops, std::vector<double>());
  v("bandwidth_gbs", machine.bandwidth_gbs);
};

constexpr auto describe_layout = [](auto& v, Layout& layout) {
  v("ranks", layout.ranks);
  v("gbs", layout.gbs);
  v("mbs", layout.mbs);
  v("lbs", layout.lbs);
  v("ga", layout.ga);
  v("seq_len", layout.seq_len);
  v("tp", layout.tp);
  v("pp", layout.pp);
  v("cp", layout.cp);
  v("ep", layout.ep);
  v.or_null("vp", layout.vp, int64_t{0});
  v("fsdp", layout.fsdp);
};

// Its columns go by the names of the row's own, so that the two can be compared key by key.
constexpr auto describe_published = [](auto& v, PublishedRow& published) {
  config::Published& columns = published.columns;
  v("machine", columns.machine);
  v("precision", columns.precision);
  v("ranks", columns.gpus);
  v("gbs", columns.gbs);
  v("mbs", columns.mbs);
  v("lbs", columns.lbs);
  v("ga", columns.ga);
  v("seq_len", columns.seq_len);
  v("tp", columns.tp);
  v("pp", columns.pp);
  v("cp", columns.cp);
  v("ep", columns.ep);
  v("vp", columns.vp);
  v("fsdp", columns.fsdp);
  v("kernels", columns.kernels);
  v("step_time_s", columns.step_time_s);
  v("tflops_per_s_per_gpu", columns.tflops_per_s_per_gpu);
  v("tokens_per_s_per_gpu", columns.tokens_per_s_per_gpu);
  v("peak_tflops", published.peak_tflops);
  v("corrected_tflops", columns.corrected_tflops);
  v("corrected_because", columns.corrected_because);
  v("notes", columns.notes);
  v("step", columns.step);
};

constexpr auto describe_change = [](auto& v, config::Change& change) {
  v("key", change.key);
  v("before", change.before);
  v("after", change.after);
};

constexpr auto describe_unavailable = [](auto& v, config::Unavailable& unavailable) {
  v("key", unavailable.key);
  v("value", unavailable.value);
  v("instead", unavailable.instead);
};

constexpr auto describe_growth = [](auto& v, RankGrowth& grown) {
  v("rank", grown.rank);
  v("arena", grown.growth.arena);
  v("chunks", grown.growth.chunks);
  v("bytes", grown.growth.bytes);
};

constexpr auto describe_times = [](auto& v, BenchmarkRow& row) {
  v.derived("median", row.median_seconds());
  v.derived("min", row.step_seconds.empty() ? 0 : *std::ranges::min_element(row.step_seconds));
  v.derived("max", row.step_seconds.empty() ? 0 : *std::ranges::max_element(row.step_seconds));
  v("all", row.step_seconds);
};

Json ops_json(const OpProfile& profile) {
  Json ops = Json::array();
  for (const OpTotals& op : profile.ops) {
    ops.push_back({{"name", op.name},
                   {"calls", op.calls.size()},
                   {"seconds", op.seconds},
                   {"roofline_seconds", op.roof_seconds(profile.roof)},
                   {"arithmetic_seconds", op.arithmetic_seconds(profile.roof)},
                   {"flops", op.flops()},
                   {"bytes", op.bytes()}});
  }
  return {{"step_time_s", profile.step_seconds},
          {"outside_ops_s", profile.step_seconds - profile.seconds_in_ops()},
          {"roofline_s", profile.roof_seconds()},
          {"ops", std::move(ops)}};
}

constexpr auto describe_row = [](auto& v, BenchmarkRow& row) {
  v("row", row.row);
  v("model", row.model);
  v("config", row.config);
  v("scale", row.scale);
  std::string layout = row.row_layout ? "row" : "fitted";
  v("layout", layout);
  row.row_layout = layout == "row";
  if (!row.row_layout && layout != "fitted") throw user_error("layout {} is neither row nor fitted", layout);
  v("layers", row.layers);
  v("features", row.features);
  v.kernels("kernels", row.kernels);
  v("device", row.device);
  v("threads", row.threads);
  v.or_absent("processes", row.processes, 1);
  v.or_absent("hosts", row.hosts, 1);
  v("precision", row.precision);
  describe_layout(v, row.layout);
  v("warmup_steps", row.warmup_steps);
  v.object("step_time_s", row, describe_times);
  v.derived("tokens_per_s_per_gpu", row.tokens_per_s_per_rank());
  v.derived("model_tflops_per_s_per_gpu", row.model_tflops_per_rank());
  v("peak_tflops", row.peak_tflops);
  v.later("peak_precision", row.peak_precision, row.precision);
  v("peak_stated", row.peak_stated);
  v.derived("mfu", row.mfu());
  v("gflop_per_token", row.gflop_per_token);
  v("roofline_step_time_s", row.roofline_seconds);
  v("loss", row.losses);
  v("mtp_loss", row.mtp_losses);
  std::string shard = row.local_shard > 1 ? fmt::format("1/{}", row.local_shard) : std::string();
  v.or_null("local_shard", shard, std::string());
  row.local_shard = shard.empty() ? 1 : std::stoll(shard.substr(shard.find('/') + 1));
  v("balance", row.balance);
  v("gate_noise", row.gate_noise);
  v("load_factor", row.load_factor);
  v("optimizer_state_dtype", row.optimizer_state_dtype);
  v("recompute", row.recompute);
  v("data", row.data);
  v.or_null("max_grad_norm", row.max_grad_norm, 0.0);
  v.objects("not_available", row.unavailable, describe_unavailable);
  v("max_memory_bytes", row.max_memory_bytes);
  v("planned_memory_bytes", row.planned_memory_bytes);
  v.objects("grown", row.grown, describe_growth);
  v.objects("changed", row.changes, describe_change);
  v.object_or_null("published", row.published, describe_published);
  if (row.ops) v.derived("ops", ops_json(*row.ops));
};

constexpr auto describe_report = [](auto& v, BenchmarkReport& report) {
  v("version", report.version);
  v("commit", report.commit);
  v("layouts", report.layouts);
  v.object("machine", report.machine, describe_machine);
  v.objects("rows", report.rows, describe_row);
};

// Figures are made of these: what no run can have is no report.
void check(const BenchmarkReport& report) {
  if (report.rows.empty()) throw user_error("there are no rows");
  for (const BenchmarkRow& row : report.rows) {
    const auto positive = [](double value) { return value > 0 && std::isfinite(value); };
    const auto need = [&](bool ok, const char* key) {
      if (!ok) throw user_error("row {}: {} is not what a run can have", row.row.empty() ? row.model : row.row, key);
    };
    constexpr int64_t most = int64_t{1} << 31;  // the product of two must fit
    const Layout& l = row.layout;
    for (const int64_t count : {l.ranks, l.gbs, l.mbs, l.lbs, l.ga, l.seq_len, l.tp, l.pp, l.cp, l.ep, l.fsdp}) {
      need(count >= 1 && count <= most, "the layout");
    }
    need(l.vp >= 0 && row.warmup_steps >= 0, "vp or warmup_steps");
    need(!row.step_seconds.empty() && std::ranges::all_of(row.step_seconds, positive), "step_time_s");
    need(!row.losses.empty(), "loss");
    need(positive(row.peak_tflops) && positive(row.gflop_per_token), "peak_tflops or gflop_per_token");
    need(row.local_shard >= 1 && row.threads >= 1, "local_shard or threads");
    need(row.hosts >= 1 && row.processes >= row.hosts, "processes or hosts");
  }
}

}  // namespace

std::string report_json(const BenchmarkReport& report) {
  Json json = Json::object();
  Writer writer(json);
  BenchmarkReport copy = report;  // the fields are listed as a reader needs them
  describe_report(writer, copy);
  // Names from outside need not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

BenchmarkReport read_report(std::string_view json, const std::string& file) {
  try {
    const Json parsed = Json::parse(json);
    BenchmarkReport report;
    Reader reader(parsed);
    describe_report(reader, report);
    check(report);
    return report;
  } catch (const std::exception& error) {
    throw user_error("{} is not what sluice bench --json writes: {}", file, error.what());
  }
}

std::string evaluation_json(const EvaluationRecord& record) {
  const auto& [evaluated, samples, seconds] = record.evaluation;
  Json json;
  json["version"] = record.version;
  json["commit"] = record.commit;
  json["config"] = record.config;
  json["dataset"] = record.dataset;
  json["weights"] = record.weights.empty() ? Json() : Json(record.weights);
  json["model"] = record.model;
  json["parameters"] = record.parameters;
  json["device"] = record.device;
  json["dtype"] = record.dtype;
  json["ranks"] = record.ranks;
  json["gbs"] = record.global_batch;
  json["seq_len"] = record.seq_len;
  json["samples"] = samples;
  json["tokens"] = evaluated.label_tokens;
  json["loss"] = evaluated.loss;
  json["unit"] = record.bytes ? "nats/byte" : "nats/token";
  if (record.bytes) {
    json["bits_per_byte"] = evaluated.loss / std::numbers::ln2;
  } else {
    json["perplexity"] = std::exp(evaluated.loss);
  }
  json["seconds"] = seconds;
  json["tokens_per_s"] = static_cast<double>(evaluated.label_tokens) / seconds;
  return json.dump(2) + "\n";
}

}  // namespace sluice
