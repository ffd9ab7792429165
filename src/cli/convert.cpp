// `sluice convert`: weights as a hub directory: those of a checkpoint, or another hub directory's dequantised, in
// another type, in files of another size.
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <system_error>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "checkpoint/checkpoint_model.h"
#include "checkpoint/hub_export.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/model_notes.h"
#include "cli/outputs.h"
#include "cli/setup.h"
#include "cli/terminal.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

struct ConvertOptions {
  std::string source;
  std::string target;
  std::optional<std::string> dtype;
  std::string max_shard_size = "5GB";
  bool overwrite = false;
};

// "5GB", "500 MiB", "1000000".
uint64_t parse_size(const std::string& text) {
  struct Unit {
    std::string_view name;
    double bytes;
  };
  constexpr Unit units[] = {{"", 1},      {"B", 1},        {"KB", 1e3},        {"MB", 1e6},          {"GB", 1e9},
                            {"TB", 1e12}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  double number = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string_view rest(end, static_cast<size_t>(text.data() + text.size() - end));
  while (rest.starts_with(' ')) rest.remove_prefix(1);
  for (const Unit& unit : units) {
    const double bytes = number * unit.bytes;
    if (failure == std::errc() && rest == unit.name && bytes >= 1 && bytes <= 1e18) return static_cast<uint64_t>(bytes);
  }
  throw user_error("--max-shard-size {} is not a size", text)
      .at("command line")
      .advise("a number of bytes, or with a unit: 500MB, 5GB, 2GiB");
}

std::optional<DType> parse_dtype(const std::optional<std::string>& word) {
  if (!word) return {};
  return *word == "bf16" ? DType::bf16 : DType::f32;
}

// What is converted: a model of the hub, or a checkpoint.
struct Source {
  HfConfig config;
  ModelConfig model;
  std::string what;           // for people
  uint64_t bytes = 0;         // that will be written
  std::optional<DType> type;  // that config.json shall say; none: as it does
  std::function<ExportCount(const fs::path& to, const ExportOptions& options)> write;
};

Source hub_source(const fs::path& path, std::optional<DType> dtype) {
  Source source{.config = HfConfig::load(path), .model = {}, .what = {}, .type = dtype, .write = {}};
  source.model = make_model(source.config);
  source.model.name = path.filename().empty() ? path.parent_path().filename() : path.filename();
  const auto hub = std::make_shared<HubWeights>(path);
  const auto match = std::make_shared<HubMatch>(match_weights(*hub, source.model));
  source.what = describe(*match, *hub);
  source.bytes = convert_bytes(*hub, *match, dtype);
  if (match->quantized > 0 && !dtype) source.type = DType::bf16;
  source.write = [hub, match, dtype](const fs::path& to, const ExportOptions& options) {
    return convert_weights(*hub, *match, to, dtype, options);
  };
  return source;
}

// In the type that the run computed in unless another one is asked for, as `train --export` writes it.
Source checkpoint_source(const fs::path& path, std::optional<DType> dtype) {
  const auto checkpoint = std::make_shared<Checkpoint>(path);
  Source source{.config = HfConfig::load(path), .model = model_of(*checkpoint), .what = {}, .type = dtype, .write = {}};
  const DType type = dtype.value_or(hub_dtype(source.config));
  source.what = describe(*checkpoint);
  source.bytes = export_bytes(source.model, type);
  source.write = [checkpoint, model = source.model, type](const fs::path& to, const ExportOptions& options) {
    return export_checkpoint(*checkpoint, model, to, type, options);
  };
  return source;
}

int run_convert(const ConvertOptions& options) {
  outlive_readers();
  ProgressTimer timer;
  const fs::path target = options.target;
  const std::optional<DType> dtype = parse_dtype(options.dtype);
  const uint64_t max_file_bytes = parse_size(options.max_shard_size);
  const std::optional<fs::path> checkpoint = find_checkpoint(options.source);
  const fs::path path = checkpoint.value_or(options.source);
  const Source source = checkpoint ? checkpoint_source(path, dtype) : hub_source(path, dtype);
  Inputs inputs;
  inputs.add_model(path, "SOURCE");
  Outputs outputs(std::move(inputs), options.overwrite);
  StagedDirectory staged(outputs.model_directory(target, "TARGET"), options.overwrite);
  require_space(target, source.bytes, "TARGET");
  const Interrupt interrupt({.give_up = [&] {
    if (staged.committed()) return std::string();
    staged.abandon();
    return fmt::format("{} is as it was before", target.string());
  }});
  staged.begin();
  std::set<std::string> told;
  warn_of_unread_fields(source.config, told);
  const auto line = [](const std::string& text) { print(wrap(text, page_width(), 2) + "\n"); };
  line(fmt::format("{} ({}): {}", source.model.name, source.model.model_type, source.what));
  std::fflush(stdout);

  Pool pool(static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  const auto progress = [&](uint64_t done, uint64_t all) {
    if (done == all || !timer.due()) return;
    const double now = timer.seconds();
    log::info("{} of {} written, {}/s, {} to go", format_bytes(done), format_bytes(all),
              format_bytes(static_cast<uint64_t>(static_cast<double>(done) / now)),
              format_clock(now * static_cast<double>(all - done) / static_cast<double>(done)));
  };
  const ExportCount count =
      source.write(staged.path(), {.max_file_bytes = max_file_bytes, .pool = &pool, .progress = progress});
  const int beside = copy_hub_files(path, staged.path(), source.type);
  // What was written is this model.
  const HubWeights written(staged.path());
  match_weights(written, make_model(HfConfig::load(staged.path())));
  staged.commit();
  const double seconds = timer.seconds();
  line(fmt::format("{}: {} tensors, {} in {} file{}, {} file{} beside them, in {} ({}/s)", target.string(),
                   format_count(std::ssize(written.weights())), format_bytes(count.bytes), count.files,
                   count.files == 1 ? "" : "s", beside, beside == 1 ? "" : "s", format_duration(seconds),
                   format_bytes(static_cast<uint64_t>(static_cast<double>(count.bytes) / seconds))));
  return 0;
}

}  // namespace

Command convert_command() {
  auto options = std::make_shared<ConvertOptions>();
  return {
      .name = "convert",
      .summary = "write weights as a hub directory: of a checkpoint, or dequantised, in another type, in other files",
      .details =
          "SOURCE is a checkpoint of a run in any layout, a run's directory, which stands for its newest checkpoint, "
          "or\n"
          "a directory of the hub with config.json and safetensors. Tensors are checked by name and shape against the\n"
          "model first. FP8 (DeepSeek) and MXFP4 (GPT-OSS) weights are decoded to bf16 unless --dtype says otherwise.\n"
          "TARGET appears when it is complete.",
      .options = {{"SOURCE",
                   &options->source,
                   "a checkpoint, a run's directory, or one with config.json and safetensors",
                   "",
                   {},
                   true},
                  {"TARGET", &options->target, "a directory that is made", "", {}, true},
                  {"--dtype",
                   &options->dtype,
                   "of all weights (default: as stored, or as the run computed)",
                   "bf16|fp32",
                   {"bf16", "fp32"}},
                  {"--max-shard-size", &options->max_shard_size, "of a file (default: 5GB)", "SIZE"},
                  overwrite_option(options->overwrite)},
      .one_process = true,
      .run = [options] { return run_convert(*options); }};
}

}  // namespace sluice::cli
