#include "training/bad_steps.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <system_error>

#include "base/file.h"
#include "base/text.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRollbackFile = "rolled_back.json";

// What makes the loss a spike; empty where it is none.
std::string spike_of(const config::BadSteps& rule, double loss, std::span<const double> recent) {
  const auto window = static_cast<size_t>(rule.spike_window);
  if (rule.spike == config::Spike::off || recent.size() < window) return {};
  const std::span<const double> last = recent.last(window);
  const auto count = static_cast<double>(window);
  const double mean = std::accumulate(last.begin(), last.end(), 0.0) / count;
  double squares = 0;
  for (const double each : last) squares += (each - mean) * (each - mean);
  const double deviation = std::sqrt(squares / count);
  if (!(loss > mean + rule.spike_deviations * deviation)) return {};
  return fmt::format(
      "loss {:.4f} is {:.1f} standard deviations ({:.4f}) above {:.4f}, the mean of {} steps "
      "(bad_steps.spike)",
      loss, (loss - mean) / deviation, deviation, mean, window);
}

Verdict verdict_of(config::NonFinite rule) {
  switch (rule) {
    case config::NonFinite::stop:
      return Verdict::end;
    case config::NonFinite::skip:
      return Verdict::leave_out;
    case config::NonFinite::roll_back:
      return Verdict::roll_back;
  }
  return Verdict::end;
}

}  // namespace

Judgement judge_step(const config::BadSteps& rule, const StepResult& step, std::span<const double> recent) {
  if (!Trainer::finite(step)) {
    return {verdict_of(rule.non_finite),
            fmt::format("loss {}, gradient norm {}: not finite (bad_steps.non_finite)", step.loss, step.gradient_norm)};
  }
  std::string spike = spike_of(rule, step.loss, recent);
  if (spike.empty()) return {};
  return {rule.spike == config::Spike::skip ? Verdict::leave_out : Verdict::roll_back, std::move(spike)};
}

bool same_remedies(const Manifest& before, const Manifest& now) {
  constexpr std::array kSections = {"optimizer.", "lr_scheduler.", "bad_steps."};
  const auto remedies = [&](const Manifest& manifest) {
    std::map<std::string, std::string> settings = manifest.settings;
    std::erase_if(settings, [&](const auto& setting) {
      return std::ranges::none_of(kSections, [&](const char* section) { return setting.first.starts_with(section); });
    });
    return settings;
  };
  return remedies(before) == remedies(now);
}

void keep_rollback(const fs::path& folder, const Manifest& run) {
  write_file_atomic(folder / kRollbackFile, manifest_text(run));
}

std::optional<Manifest> kept_rollback(const fs::path& folder, int64_t step) {
  const fs::path file = folder / kRollbackFile;
  std::error_code failed;
  if (!fs::exists(file, failed)) return std::nullopt;
  try {
    Manifest kept = parse_manifest(read_file(file, kMaxManifestBytes), file.string());
    return kept.run.step == step ? std::optional(std::move(kept)) : std::nullopt;
  } catch (const Error& error) {
    if (!error.hint().empty()) throw;
    throw user_error("{}", error.what())
        .advise(fmt::format("without it the run meets the batches again that it passes over: rm {}",
                            quoted_for_shell(file.string())));
  }
}

void forget_rollback(const fs::path& folder) {
  std::error_code ignored;
  fs::remove(folder / kRollbackFile, ignored);
}

}  // namespace sluice
