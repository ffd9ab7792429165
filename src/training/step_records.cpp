#include "training/step_records.h"

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <limits>

namespace sluice {
namespace {

using Json = nlohmann::ordered_json;

// "2026-11-30T03:22:05.123Z", as ISO 8601 writes a time of UTC.
std::string utc(std::chrono::system_clock::time_point time) {
  using namespace std::chrono;
  const auto day = floor<days>(time);
  const year_month_day date(day);
  const hh_mm_ss clock(floor<milliseconds>(time - day));
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()), clock.hours().count(),
                     clock.minutes().count(), clock.seconds().count(), clock.subseconds().count());
}

Json percent(const std::optional<double>& share) {
  return share ? Json(100 * *share) : Json();
}

Json loads_json(const std::vector<LayerLoad>& loads) {
  Json list = Json::array();
  for (const LayerLoad& load : loads) {
    list.push_back({{"layer", load.layer},
                    {"max_over_mean", load.max_over_mean},
                    {"entropy", load.entropy},
                    {"unused", load.unused}});
  }
  return list;
}

}  // namespace

std::string record_json(const TrainRecord& record, std::chrono::system_clock::time_point now) {
  constexpr double gib = 1024.0 * 1024.0 * 1024.0;
  Json json;
  json["step"] = record.step;
  json["epoch"] = record.epoch;
  json["timestamp"] = utc(now);
  if (record.validation_loss) {
    json["val_loss"] = *record.validation_loss;
    json["lr"] = record.learning_rate;
    json["num_label_tokens"] = record.validation_label_tokens;
    json["mem"] = static_cast<double>(record.memory_bytes) / gib;
    return json.dump();
  }
  const StepResult& result = record.result.value();
  json["loss"] = result.loss;
  if (result.mtp_loss) json["mtp_loss"] = *result.mtp_loss;
  json["grad_norm"] = record.gradient_norm ? Json(*record.gradient_norm) : Json();
  json["lr"] = record.learning_rate;
  json["mem"] = static_cast<double>(record.memory_bytes) / gib;
  json["tps"] = record.tokens_per_s;
  json["tps_per_gpu"] = record.tokens_per_s / record.ranks;
  json["mfu"] = percent(record.mfu);
  json["num_tokens_per_step"] = record.tokens;
  json["num_label_tokens"] = result.label_tokens;
  if (record.left_out) json["left_out"] = true;
  json["seconds"] = record.seconds;
  json["roofline_percent"] = percent(record.roofline);
  if (record.times) {
    json["slowest_rank"] = record.times->slowest;
    json["slowest_seconds"] = record.times->most;
    json["other_seconds"] = record.times->mean_others;
  }
  if (!result.expert_load.empty()) json["expert_load"] = loads_json(result.expert_load);
  return json.dump();
}

std::optional<int64_t> step_of_record(std::string_view line) {
  // The parser takes a null byte for the end, and a crash may leave some.
  if (line.find('\0') != std::string_view::npos) return {};
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object() || (!json.contains("loss") && !json.contains("val_loss"))) return {};
  const auto step = json.find("step");
  if (step == json.end() || !step->is_number_unsigned()) return {};
  const auto value = step->get<uint64_t>();
  if (value < 1 || value > uint64_t{std::numeric_limits<int64_t>::max()}) return {};
  return static_cast<int64_t>(value);
}

}  // namespace sluice
