#include "model/rope_settings.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/error.h"

namespace sluice {

namespace {

// Both spellings become the field rope_theta and the rest below "rope".
HfConfig flattened(const HfConfig& source) {
  HfConfig config = source;
  std::vector<std::string> keys;
  for (const auto& [key, field] : config.fields()) keys.push_back(key);
  for (const std::string_view group : {"rope_parameters", "rope_scaling"}) {
    if (!config.has(group)) continue;
    for (const std::string& key : keys) {
      if (!key.starts_with(group) || key.size() <= group.size() || key[group.size()] != '.') continue;
      const std::string leaf = key.substr(group.size() + 1);
      config.unify(leaf == "rope_theta" ? leaf : leaf == "type" ? "rope.rope_type" : "rope." + leaf, key);
    }
  }
  return config;
}

void refuse_leftovers(const HfConfig& config, const std::vector<std::string_view>& known) {
  for (const auto& [key, field] : config.fields()) {
    if (!key.starts_with("rope.") || key == "rope.rope_type" || key == "rope.partial_rotary_factor") continue;
    if (std::find(known.begin(), known.end(), std::string_view(key).substr(5)) != known.end()) continue;
    throw user_error("{} is not supported for this family", field.spelling).at(field.where);
  }
}

// The positions a model was trained for before they were stretched. Beside the scaling the field has the last word
// (Hugging Face's standardize_rope_params).
std::string_view original_key(const HfConfig& config) {
  return config.has("original_max_position_embeddings") ? "original_max_position_embeddings"
                                                        : "rope.original_max_position_embeddings";
}

// The pair that turns `rotations` times within the original length.
double correction_pair(double rotations, double theta, double dim, double original) {
  return dim * std::log(original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(theta));
}

RopeScaling read_yarn(const HfConfig& config, double theta, int64_t dim) {
  refuse_leftovers(config, {"factor", "beta_fast", "beta_slow", "original_max_position_embeddings", "mscale",
                            "mscale_all_dim", "attention_factor", "truncate"});
  const auto real_dim = static_cast<double>(dim);
  RopeScaling yarn;
  yarn.factor = config.number("rope.factor", {1, 1e6});
  const double fast = config.number("rope.beta_fast", {1e-6, 1e6}, 32),
               slow = config.number("rope.beta_slow", {1e-6, 1e6}, 1);
  const double original =
      config.number(original_key(config), {1, 1e9}, config.number("max_position_embeddings", {1, 1e9}, 2048));
  yarn.start = correction_pair(fast, theta, real_dim, original);
  yarn.end = correction_pair(slow, theta, real_dim, original);
  if (config.boolean("rope.truncate", true)) {
    yarn.start = std::floor(yarn.start);
    yarn.end = std::ceil(yarn.end);
  }
  yarn.start = std::max(yarn.start, 0.0);
  yarn.end = std::min(yarn.end, real_dim - 1);
  if (yarn.end == yarn.start) yarn.end += 0.001;
  if (yarn.end < yarn.start) {
    throw user_error("rotary scaling: beta_fast {} and beta_slow {} are the wrong way round", fast, slow)
        .at(config.where(config.has("rope.beta_fast") ? "rope.beta_fast" : "rope.rope_type"));
  }
  const double mscale = config.number("rope.mscale", {0, 1e3}, 0.0);
  const double all_dim = config.number("rope.mscale_all_dim", {0, 1e3}, 0.0);
  const double growth = mscale != 0 && all_dim != 0
                            ? yarn_mscale(yarn.factor, mscale) / yarn_mscale(yarn.factor, all_dim)
                            : yarn_mscale(yarn.factor);
  yarn.amplitude = config.number("rope.attention_factor", {1e-6, 1e6}, growth);
  return yarn;
}

// All positions are nearer to one another, by the factor.
RopeScaling read_linear(const HfConfig& config) {
  refuse_leftovers(config, {"factor"});
  return {.factor = config.number("rope.factor", {1, 1e6}), .start = -2, .end = -1};
}

RopeScaling read_llama3(const HfConfig& config) {
  refuse_leftovers(config, {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"});
  RopeScaling scaling;
  scaling.factor = config.number("rope.factor", {1, 1e6});
  scaling.start = config.number("rope.high_freq_factor", {1e-6, 1e6});
  scaling.end = config.number("rope.low_freq_factor", {1e-6, 1e6});
  if (scaling.start <= scaling.end) {
    throw user_error("rotary scaling: high_freq_factor {} is not above low_freq_factor {}", scaling.start, scaling.end)
        .at(config.where("rope.high_freq_factor"));
  }
  scaling.original = config.number(original_key(config), {1, 1e9});
  return scaling;
}

}  // namespace

double yarn_mscale(double factor, double m) {
  return factor <= 1 ? 1 : 0.1 * m * std::log(factor) + 1;
}

RopeSettings read_rope(const HfConfig& source, double default_theta, int64_t dim) {
  const HfConfig config = flattened(source);
  RopeSettings settings;
  config.has("original_max_position_embeddings");  // says nothing where nothing is stretched
  if (config.number("rope.partial_rotary_factor", {0, 1}, 1.0) != 1) {
    throw user_error("{}: all columns of a head have rotary positions here",
                     config.describe("rope.partial_rotary_factor"))
        .at(config.where("rope.partial_rotary_factor"));
  }
  settings.theta = config.number("rope_theta", {1, 1e15}, default_theta);
  const std::string type = config.text("rope.rope_type", "default");
  if (type == "default") {
    refuse_leftovers(config, {});
  } else if (type == "yarn") {
    settings.scaling = read_yarn(config, settings.theta, dim);
    settings.mscale_all_dim = config.number("rope.mscale_all_dim", {0, 1e3}, 0.0);
  } else if (type == "llama3") {
    settings.scaling = read_llama3(config);
  } else if (type == "linear") {
    settings.scaling = read_linear(config);
  } else {
    throw user_error("rotary scaling of type {} is not supported", to_text(type))
        .at(config.where("rope.rope_type"))
        .advise("there are default, linear, llama3 and yarn; or train without it: rope_scaling: null");
  }
  return settings;
}

}  // namespace sluice
