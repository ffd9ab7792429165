#include "model/rope_settings.h"

#include "base/error.h"

namespace sluice {

RopeSettings read_rope(HfConfig config, double default_theta) {
  for (const std::string_view group : {"rope_parameters", "rope_scaling"}) {
    const std::string prefix = std::string(group) + '.';
    config.unify("rope_theta", prefix + "rope_theta");
    config.unify("rope_type", prefix + "rope_type");
    config.unify("rope_type", prefix + "type");
  }
  if (const std::string type = config.text("rope_type", "default"); type != "default") {
    throw user_error("rotary scaling of type {} is not supported for this family", to_text(type))
        .at(config.where("rope_type"))
        .advise("train without it: rope_scaling: null");
  }
  for (const std::string_view group : {"rope_parameters", "rope_scaling"}) {
    const auto at = config.fields().lower_bound(group);
    if (at == config.fields().end() || !config.has(group)) continue;
    throw user_error("{} is not supported for this family", at->second.spelling).at(at->second.where);
  }
  return {.theta = config.number("rope_theta", {1, 1e15}, default_theta)};
}

}  // namespace sluice
