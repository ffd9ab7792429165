#include <fmt/core.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <memory>

#include "base/file.h"
#include "bench_ops.h"
#include "device/cuda/cuda.h"
#include "device/meta/meta_backend.h"
#include "device/ref/ref_backend.h"
#include "gpu_ops.h"
#include "moe_layer.h"
#include "sluice_commit.h"

namespace sluice {

namespace {

using Json = nlohmann::ordered_json;

struct Machine {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Memory> memory;
};

Machine machine_of(const std::string& device) {
  if (device == "cuda") return {cuda::make_backend({}), cuda::make_device_memory(0)};
  if (device == "ref") return {std::make_unique<RefBackend>(), std::make_unique<HostMemory>()};
  if (device == "meta") {
    constexpr int kRowAlign = 128;
    const DeviceModel model{.target = {.row_align = kRowAlign, .workers = 1, .platform = Platform::gpu}};
    return {std::make_unique<MetaBackend>(model), std::make_unique<MetaMemory>()};
  }
  throw user_error("no device {}", device).advise("cpu, cuda, ref or meta");
}

Json seconds_json(const Batches& b) {
  return {{"median", b.median}, {"min", b.least}, {"max", b.most}, {"batches", b.batches}, {"per_batch", b.per_batch}};
}

Json op_json(const TimedOp& op, const Ceilings& ceilings) {
  Json out{{"op", op.name}, {"what", op.what}, {"tensors", op.tensors}, {"flops", op.cost.flops}};
  const double bytes = op.floor.bytes > 0 ? op.floor.bytes : op.cost.bytes();
  out["bytes"] = bytes;
  out["floor"] = op.floor.text;
  const double seconds = op.time.median, floor = op.floor.limit(op.cost, ceilings.copy_byte_per_s);
  if (!op.failure.empty()) out["failed"] = op.failure;
  if (seconds == 0) return out;
  out["seconds"] = seconds_json(op.time);
  out["flop_per_s"] = op.cost.flops / seconds;
  out["byte_per_s"] = bytes / seconds;
  out["floor_seconds"] = floor > 0 ? Json(floor) : Json();
  out["fraction_of_floor"] = floor > 0 ? Json(floor / seconds) : Json();
  if (!op.alone_by.empty()) {
    out["alone_by"] = op.alone_by;
    out["alone_seconds"] = op.alone.median > 0 ? seconds_json(op.alone) : Json();
  }
  return out;
}

void print_op(const TimedOp& op, const Json& json) {
  fmt::print("{:<25}{:<46}", op.name, op.what);
  if (op.time.median == 0) {
    fmt::print("  {}\n", op.failure.empty() ? op.floor.text : "failed: " + op.failure);
    return;
  }
  fmt::print("{:>11.1f}{:>9.1f}{:>9.1f}", 1e6 * op.time.median, 1e-12 * json["flop_per_s"].get<double>(),
             1e-9 * json["byte_per_s"].get<double>());
  const Json& fraction = json["fraction_of_floor"];
  fmt::print("{:>7}  {}\n", fraction.is_null() ? "" : fmt::format("{:.2f}", fraction.get<double>()), op.floor.text);
}

template <class... Ops>
std::vector<std::string> names_of(OpList<Ops...> /*list*/) {
  return {std::string(Ops::name)...};
}

// Operations of the vocabulary that the list does not have.
std::vector<std::string> not_timed(const std::vector<TimedOp>& timed) {
  std::vector<std::string> missing;
  for (const std::string& name : names_of(AllOps())) {
    bool found = false;
    for (const TimedOp& op : timed) found = found || op.name == name;
    if (!found) missing.push_back(name);
  }
  return missing;
}

Json gpus_json(const cuda::Gpus& gpus) {
  Json list = Json::array();
  for (const cuda::Gpu& gpu : gpus.list) {
    list.push_back(
        {{"name", gpu.name}, {"sms", gpu.num_sms}, {"capability", gpu.capability}, {"memory_bytes", gpu.memory_bytes}});
  }
  return list;
}

}  // namespace

int bench_gpu(const BenchOptions& options) {
  const cuda::Gpus gpus = cuda::find_gpus();
  Json out{{"device", options.device},      {"commit", generated::commit()}, {"gpus", gpus_json(gpus)},
           {"versions", gpus.versions},     {"why_none", gpus.why_none},     {"dtype", "bf16"},
           {"time", "median of batches"},   {"ceilings", nullptr},           {"ops", Json::array()},
           {"expert_layers", Json::array()}};
  const auto write = [&] {
    if (!options.json.empty()) write_file_atomic(options.json, out.dump(1) + "\n");
  };
  if (options.device == "cuda" && gpus.list.empty()) {
    fmt::print("nothing is timed: {}\n", gpus.why_none);
    write();
    return 0;
  }
  Machine machine = machine_of(options.device);
  GpuBench bench(*machine.backend, *machine.memory, options.seconds, options.only);
  const bool tiny = options.device == "ref";
  // One block, so that no group takes memory of its own.
  if (!tiny) bench.reserve(size_t{20} << 30);
  const Ceilings ceilings = tiny ? measure_ceilings(bench, 64, 1 << 16) : measure_ceilings(bench, 8192, 1 << 30);
  if (bench.real()) {
    out["ceilings"] = {{"gemm_8192_flop_per_s", ceilings.flop_per_s}, {"copy_byte_per_s", ceilings.copy_byte_per_s}};
    fmt::print("{}{}at best {:.4g} TFLOP/s, {:.4g} GB/s copied\n{:<25}{:<46}{:>11}{:>9}{:>9}{:>7}  {}\n",
               gpus.list.empty() ? "" : gpus.list[0].name + ": ", gpus.versions + ": ", 1e-12 * ceilings.flop_per_s,
               1e-9 * ceilings.copy_byte_per_s, "operation", "", "us", "TFLOP/s", "GB/s", "of", "floor");
  }
  size_t shown = 0;
  const auto show_new = [&] {
    for (; shown < bench.results().size(); ++shown) {
      Json json = op_json(bench.results()[shown], ceilings);
      print_op(bench.results()[shown], json);
      out["ops"].push_back(std::move(json));
    }
    std::fflush(stdout);
    write();
  };
  bench.on_progress(show_new);
  time_all_operations(bench, tiny);
  show_new();
  for (const MoeLayer& layer : moe_layers(bench.results())) {
    const double floor = layer.floor.limit({.flops = layer.flops}, ceilings.copy_byte_per_s);
    fmt::print("expert layer {:<12}{:<46}{:>11.1f}{:>9.1f}{:>9}{:>7.2f}  {}\n", layer.direction, layer.what,
               1e6 * layer.seconds, 1e-12 * layer.flops / layer.seconds, "", floor / layer.seconds, layer.floor.text);
    out["expert_layers"].push_back({{"what", layer.what},
                                    {"direction", layer.direction},
                                    {"seconds", layer.seconds},
                                    {"flop_per_s", layer.flops / layer.seconds},
                                    {"floor", layer.floor.text},
                                    {"fraction_of_floor", floor / layer.seconds}});
  }
  write();
  const std::vector<std::string> missing = not_timed(bench.results());
  int failed = 0;
  for (const TimedOp& op : bench.results()) failed += op.failure.empty() ? 0 : 1;
  if (failed > 0) fmt::print(stderr, "error: {} operations failed\n", failed);
  const bool complete = missing.empty() || !options.only.empty();
  if (!complete) fmt::print(stderr, "error: not timed: {}\n", fmt::join(missing, ", "));
  return failed == 0 && complete ? 0 : 1;
}

}  // namespace sluice
