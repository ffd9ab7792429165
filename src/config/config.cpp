#include "config/config.h"

#include <algorithm>

namespace sluice::config {

const HubField* HubFields::find(std::string_view key) const {
  const auto found =
      std::ranges::find(fields, key, [](const HubField& field) -> std::string_view { return field.key; });
  return found == fields.end() ? nullptr : &*found;
}

void HubFields::set(std::string_view key, std::string json) {
  const auto within = [](std::string_view inner, std::string_view outer) {
    return inner.size() > outer.size() && inner.starts_with(outer) && inner[outer.size()] == '.';
  };
  std::erase_if(fields, [&](const HubField& field) { return within(field.key, key) || within(key, field.key); });
  const auto found =
      std::ranges::find(fields, key, [](const HubField& field) -> std::string_view { return field.key; });
  if (found != fields.end()) {
    found->json = std::move(json);
  } else {
    fields.push_back({std::string(key), std::move(json)});
  }
}

Origin Config::origin(std::string_view key) const {
  const auto found = origins.find(key);
  return found == origins.end() ? Origin{} : found->second;
}

Recompute Config::recompute() const {
  if (memory.recompute) return *memory.recompute;
  switch (distributed.activation_checkpointing) {
    case ActivationCheckpointing::none:
      return {};
    case ActivationCheckpointing::selective:
      return Recompute::selective();
    case ActivationCheckpointing::full:
      break;
  }
  return {.full = true, .pieces = {}};
}

Balance Config::balance() const {
  if (benchmark.balance) return *benchmark.balance;
  return model.backend.fake_balanced_gate ? Balance::published : Balance::router;
}

double Config::watchdog_seconds() const {
  return runtime.watchdog_seconds.value_or(60 * dist_env.timeout_minutes);
}

}  // namespace sluice::config
