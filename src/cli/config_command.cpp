#include "cli/config_command.h"

#include <memory>

#include "base/text.h"
#include "cli/command.h"
#include "cli/setup.h"
#include "cli/terminal.h"
#include "device/cpu/bf16_dot.h"
#include "machine/machine_info.h"
#include "model/cards.h"
#include "model/family.h"
#include "trainer/layout.h"
#include "trainer/precision.h"
#include "trainer/scale_config.h"
#include "training/session.h"

namespace sluice::cli {
namespace {

// Continued lines are comments too.
std::string paragraph(const std::string& text) {
  std::string result;
  for (const char c : wrap(text, page_width() - 2, 4)) {
    if (result.empty() || result.back() == '\n') result += "# ";
    result += c;
  }
  return result + "\n";
}

// Bytes one rank keeps for backward at the fullest moment.
uint64_t activation_bytes(const RunSpec& spec, const RecomputePolicy& policy) {
  RunSpec changed = spec;
  changed.recompute = policy;
  // Without a pipeline one micro-batch is alive at a time.
  if (spec.mesh.pp == 1) changed.sampling.global_batch = spec.local_batch * spec.mesh.dp();
  DeviceModel device;
  device.target.workers = usable_cores();
  return plan_rank(changed, 0, device, {}).ledger.at_peak(MemoryKind::activations);
}

std::string recompute_table(const RunSpec& spec) {
  const uint64_t all = activation_bytes(spec, {});
  std::string text = paragraph(fmt::format(
      "bytes kept for backward by rank 0: {} without recomputation; memory.recompute frees", format_bytes(all)));
  const auto add = [&](const char* name, const RecomputePolicy& policy) {
    if (!policy.any()) return;  // a piece this model does not have
    const uint64_t kept = activation_bytes(spec, policy);
    const uint64_t freed = all > kept ? all - kept : 0;
    text += fmt::format("#   {:<9} {:>10}  {:>5.1f} %\n", name, format_bytes(freed),
                        100 * static_cast<double>(freed) / static_cast<double>(std::max<uint64_t>(1, all)));
  };
  for (const RecomputePiece& piece : kRecomputePieces) {
    RecomputePolicy policy;
    policy.*piece.on = true;
    add(piece.name, pieces_of(spec.model, policy));
  }
  add("full", {.full = true});
  return text;
}

std::string derived(const RunSpec& spec) {
  const Layout l = layout_of(spec);
  const ParamCount count = param_count(spec.model);
  const double flops = model_flops_per_sequence(spec.model, spec.seq_len) / static_cast<double>(spec.seq_len);
  std::string text =
      paragraph(fmt::format("{}: {} parameters, {} used by a token; {:.3f} GFLOP per token at {} tokens",
                            spec.model.name, format_magnitude(static_cast<double>(count.total)),
                            format_magnitude(static_cast<double>(count.active)), flops * 1e-9, spec.seq_len));
  text += paragraph(fmt::format("{} rank{}: pp {}, dp {}, cp {}, tp {}, ep {}, fsdp {}; {} virtual stage{} a rank",
                                l.ranks, l.ranks == 1 ? "" : "s", l.pp, spec.mesh.dp(), l.cp, l.tp, l.ep, l.fsdp,
                                spec.chunks, spec.chunks == 1 ? "" : "s"));
  text += paragraph(fmt::format("a step: {} sequences = {} accumulated x {} a rank, in micro-batches of {}; {} tokens",
                                l.gbs, l.ga, l.lbs, l.mbs, format_count(spec.tokens_per_step())));
  return text;
}

std::string ignored_by_model(const Config& config) {
  std::string text;
  const HfConfig model =
      load_hf_config(config.model.config.pretrained_model_name_or_path.value_or(""), model_overrides(config));
  for (const IgnoredHfField& field : ignored_fields(model)) {
    text += paragraph(fmt::format("  {} ({}): {}", field.key, field.where, field.reason));
  }
  return text.empty() ? text : "# of the model's own config, without effect here:\n" + text;
}

}  // namespace

int run_config(const ConfigOptions& options) {
  if (options.keys) {
    print(wrap(config::describe_keys(options.file), page_width(), 6));
    return 0;
  }
  if (options.file.empty()) {
    throw user_error("sluice config needs a file").at("command line").advise("or --keys, to list what a file may say");
  }
  Config config = load_settings(options.file, options.overrides);
  const std::optional<Scale> scale = scale_named(options.scale.value_or("full"));
  const int ranks = checked_ranks(options.ranks.value_or(scale ? 1 : ranks_of(config)));
  if (scale) {
    config = scale_config(config, scale, ranks).config;
    take_published_precision(config, scale, cpu::has_bf16_dot());
  }
  const RunSpec spec = resolve(config, ranks, Purpose::plan);
  print(config::to_yaml(config, options.given ? config::Show::given : config::Show::all, page_width()));
  print(ignored_by_model(config) + derived(spec) + recompute_table(spec));
  return 0;
}

Command config_command() {
  auto options = std::make_shared<ConfigOptions>();
  return {.name = "config",
          .summary = "the resolved configuration, and where each value came from",
          .details = "",
          .options =
              {{"FILE", &options->file, "the configuration; with --keys a section, or nothing for all"},
               {"--keys", &options->keys, "list the keys of a section instead, with what they take"},
               {"--given", &options->given, "only what was given, not the presets"},
               {"--scale", &options->scale, "as bench would shrink it", "laptop|tiny|full", {"laptop", "tiny", "full"}},
               {"--ranks", &options->ranks, "ranks to resolve it for (default: those it is written for)", "N"}},
          .overrides = &options->overrides,
          .run = [options] { return run_config(*options); }};
}

}  // namespace sluice::cli
