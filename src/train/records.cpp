#include "train/records.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

void add_layout(Json& json, const Layout& layout) {
  json["ranks"] = layout.ranks;
  json["gbs"] = layout.gbs;
  json["mbs"] = layout.mbs;
  json["lbs"] = layout.lbs;
  json["ga"] = layout.ga;
  json["seq_len"] = layout.seq_len;
  json["tp"] = layout.tp;
  json["pp"] = layout.pp;
  json["cp"] = layout.cp;
  json["ep"] = layout.ep;
  json["vp"] = layout.vp > 0 ? Json(layout.vp) : Json(nullptr);
  json["fsdp"] = layout.fsdp;
}

Json machine_json(const MachineInfo& machine) {
  return {{"cpu", machine.cpu},
          {"cores", machine.cores},
          {"isa", machine.isa},
          {"memory_bytes", machine.memory_bytes},
          {"os", machine.os},
          {"compiler", machine.compiler},
          {"gpu", machine.gpu.empty() ? Json(nullptr) : Json(machine.gpu)},
          {"libraries", machine.libraries.empty() ? Json(nullptr) : Json(machine.libraries)},
          {"peak_dtype", name_of(machine.peak_dtype)},
          {"peak_gflops", machine.peak_gflops},
          {"peak_measurements_gflops", machine.peaks_gflops},
          {"bandwidth_gbs", machine.bandwidth_gbs}};
}

Json published_json(const PublishedRow& published) {
  Json json;
  json["machine"] = or_null(published.figures.machine);
  json["gpus"] = or_null(published.figures.gpus);
  json["step_time_s"] = or_null(published.figures.step_time_s);
  json["tokens_per_s_per_gpu"] = or_null(published.figures.tokens_per_s_per_gpu);
  json["tflops_per_s_per_gpu"] = or_null(published.figures.tflops_per_s_per_gpu);
  json["printed_tflops"] = or_null(published.figures.printed_tflops);
  json["printed_because"] = or_null(published.figures.printed_because);
  add_layout(json, published.layout);
  return json;
}

Json unavailable_json(const std::vector<config::Unavailable>& unavailable) {
  Json list = Json::array();
  for (const config::Unavailable& each : unavailable) {
    list.push_back({{"key", each.key}, {"value", each.value}, {"instead", each.instead}});
  }
  return list;
}

Json kernels_json(const std::vector<KernelUse>& kernels) {
  Json json = Json::object();
  for (const KernelUse& use : kernels) json[std::string(use.part)] = use.ours;
  return json;
}

Json ops_json(const OpProfile& profile) {
  Json ops = Json::array();
  for (const OpTotals& op : profile.ops) {
    ops.push_back({{"name", op.name},
                   {"calls", op.calls.size()},
                   {"seconds", op.seconds},
                   {"roofline_seconds", op.roof_seconds(profile.roof)},
                   {"flops", op.flops()},
                   {"bytes", op.bytes()}});
  }
  return {{"step_time_s", profile.step_seconds},
          {"outside_ops_s", profile.step_seconds - profile.seconds_in_ops()},
          {"roofline_s", profile.roof_seconds()},
          {"ops", std::move(ops)}};
}

Json row_json(const BenchmarkRow& row) {
  const auto [fastest, slowest] = std::minmax_element(row.step_seconds.begin(), row.step_seconds.end());
  Json json;
  json["row"] = row.row;
  json["model"] = row.model;
  json["config"] = row.config;
  json["scale"] = row.scale;
  json["layers"] = row.layers;
  json["features"] = row.features;
  json["kernels"] = kernels_json(row.kernels);
  json["device"] = row.device;
  json["threads"] = row.threads;
  add_layout(json, row.layout);
  json["warmup_steps"] = row.warmup_steps;
  json["step_time_s"] = {
      {"median", row.median_seconds()}, {"min", *fastest}, {"max", *slowest}, {"all", row.step_seconds}};
  json["tokens_per_s_per_gpu"] = row.tokens_per_s_per_rank();
  json["model_tflops_per_s_per_gpu"] = row.model_tflops_per_rank();
  json["peak_tflops"] = row.peak_tflops;
  json["mfu"] = row.mfu();
  json["gflop_per_token"] = row.gflop_per_token;
  json["roofline_step_time_s"] = row.roofline_seconds;
  json["loss"] = row.losses;
  if (!row.mtp_losses.empty()) json["mtp_loss"] = row.mtp_losses;
  json["local_shard"] = row.local_shard > 1 ? Json(fmt::format("1/{}", row.local_shard)) : Json(nullptr);
  json["balance"] = row.balance;
  json["gate_noise"] = row.gate_noise;
  json["load_factor"] = row.load_factor;
  json["optimizer_state_dtype"] = row.optimizer_state_dtype;
  json["recompute"] = row.recompute;
  json["not_available"] = unavailable_json(row.unavailable);
  json["max_memory_bytes"] = row.max_memory_bytes;
  json["planned_memory_bytes"] = row.planned_memory_bytes;
  json["grown"] = Json::array();
  for (const auto& [rank, growth] : row.grown) {
    json["grown"].push_back(
        {{"rank", rank}, {"arena", growth.arena}, {"chunks", growth.chunks}, {"bytes", growth.bytes}});
  }
  json["published"] = row.published ? published_json(*row.published) : Json(nullptr);
  if (row.ops) json["ops"] = ops_json(*row.ops);
  return json;
}

}  // namespace

std::string benchmark_json(const MachineInfo& machine, std::string_view commit, const std::vector<BenchmarkRow>& rows) {
  Json json;
  json["machine"] = machine_json(machine);
  json["commit"] = commit;
  json["rows"] = Json::array();
  for (const BenchmarkRow& row : rows) json["rows"].push_back(row_json(row));
  // Names from outside need not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string record_json(const TrainRecord& record) {
  Json json;
  json["step"] = record.step;
  if (record.result) {
    json["loss"] = record.result->loss;
    if (record.result->mtp_loss) json["mtp_loss"] = *record.result->mtp_loss;
    json["learning_rate"] = record.result->learning_rate;
    json["gradient_norm"] = record.result->gradient_norm;
    json["label_tokens"] = record.result->label_tokens;
    json["seconds"] = record.seconds;
    json["tokens_per_s"] = record.tokens_per_s;
  }
  if (record.validation_loss) json["validation_loss"] = *record.validation_loss;
  return json.dump();
}

}  // namespace sluice
