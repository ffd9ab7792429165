// `sluice convert`: a hub directory written anew: dequantised, in another type, in files of another size.
#include <cctype>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
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

int run_convert(const ConvertOptions& options) {
  outlive_readers();
  ProgressTimer timer;
  const fs::path source = options.source, target = options.target;
  const std::optional<DType> dtype = parse_dtype(options.dtype);
  const uint64_t max_file_bytes = parse_size(options.max_shard_size);
  const HfConfig config = HfConfig::load(source);
  ModelConfig model = make_model(config);
  model.name = source.filename().empty() ? source.parent_path().filename() : source.filename();
  const HubWeights hub(source);
  const HubMatch match = match_weights(hub, model);
  Inputs inputs;
  inputs.add_model(source, "SOURCE");
  Outputs outputs(std::move(inputs), options.overwrite);
  StagedDirectory staged(outputs.model_directory(target, "TARGET"), options.overwrite);
  require_space(target, convert_bytes(hub, match, dtype), "TARGET");
  const Interrupt interrupt({.give_up = [&] {
    if (staged.committed()) return std::string();
    staged.abandon();
    return fmt::format("{} is as it was before", target.string());
  }});
  staged.begin();
  std::set<std::string> told;
  warn_of_unread_fields(config, told);
  const auto line = [](const std::string& text) { print(wrap(text, page_width(), 2) + "\n"); };
  line(fmt::format("{} ({}): {}", model.name, model.model_type, describe(match, hub)));
  std::fflush(stdout);

  Pool pool(static_cast<int>(std::max(1U, std::thread::hardware_concurrency())));
  const auto progress = [&](uint64_t done, uint64_t all) {
    if (done == all || !timer.due()) return;
    const double now = timer.seconds();
    log::info("{} of {} written, {}/s, {} to go", format_bytes(done), format_bytes(all),
              format_bytes(static_cast<uint64_t>(static_cast<double>(done) / now)),
              format_clock(now * static_cast<double>(all - done) / static_cast<double>(done)));
  };
  const ExportCount count = convert_weights(hub, match, staged.path(), dtype,
                                            {.max_file_bytes = max_file_bytes, .pool = &pool, .progress = progress});
  const int beside = copy_hub_files(source, staged.path(), match.quantized > 0 && !dtype ? DType::bf16 : dtype);
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
      .summary = "write a hub directory anew: dequantised, in another type, in files of another size",
      .details =
          "SOURCE has config.json and safetensors; its tensors are checked by name and shape against the model\n"
          "first. FP8 (DeepSeek) and MXFP4 (GPT-OSS) weights are decoded to bf16 unless --dtype says otherwise.\n"
          "TARGET appears when it is complete.",
      .options = {{"SOURCE", &options->source, "a directory with config.json and safetensors", "", {}, true},
                  {"TARGET", &options->target, "a directory that is made", "", {}, true},
                  {"--dtype", &options->dtype, "of all weights (default: as stored)", "bf16|fp32", {"bf16", "fp32"}},
                  {"--max-shard-size", &options->max_shard_size, "of a file (default: 5GB)", "SIZE"},
                  overwrite_option(options->overwrite)},
      .run = [options] { return run_convert(*options); }};
}

}  // namespace sluice::cli
