#include "cli/model_notes.h"

#include "base/log.h"
#include "base/text.h"
#include "model/cards.h"
#include "trainer/run_spec.h"

namespace sluice::cli {
namespace {

HfConfig model_config(const Config& config) {
  return load_hf_config(config.model.config.pretrained_model_name_or_path.value_or(""), model_overrides(config));
}

}  // namespace

void warn_of_unread_fields(const HfConfig& model, std::set<std::string>& told) {
  constexpr size_t most = 10;
  size_t shown = 0, more = 0;
  for (const IgnoredHfField& field : unread_fields(model)) {
    const std::string line =
        fmt::format("{}: {} {}: {}", field.where, printable_line(field.key), field.value, field.reason);
    if (!told.insert(line).second) continue;
    if (++shown <= most) {
      log::warn("{}", line);
    } else {
      ++more;
    }
  }
  if (more > 0) log::warn("{}: so are {} more fields; sluice config FILE lists all", model.source(), more);
}

void warn_of_unread_fields(const Config& config, std::set<std::string>& told) {
  warn_of_unread_fields(model_config(config), told);
}

void warn_of_unread_fields(const Config& config) {
  std::set<std::string> told;
  warn_of_unread_fields(config, told);
}

void note_long_sequences(const Config& config, int64_t seq_len) {
  const HfConfig model = model_config(config);
  constexpr std::string_view key = "max_position_embeddings";
  if (!model.has(key)) return;
  const int64_t most = model.integer(key, {});
  if (seq_len <= most) return;
  log::info(
      "sequences of {} tokens go beyond {} {} ({}): other programs may refuse such a model, and trained weights "
      "have not seen these positions",
      format_count(seq_len), key, format_count(most), model.where(key));
}

}  // namespace sluice::cli
