#include "model/family.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "model/unread_fields.h"

// The table: one line per family; each is a function in the file of its name.
// clang-format off
#define SLUICE_FAMILIES(family) \
  family(deepseek_v3) \
  family(gpt_oss) \
  family(kimi_k2) \
  family(llama) \
  family(qwen3) \
  family(qwen3_moe)
// clang-format on

namespace sluice {

#define SLUICE_DECLARE(name) const Family& name();
SLUICE_FAMILIES(SLUICE_DECLARE)
#undef SLUICE_DECLARE

namespace {

using FamilyFunction = const Family& (*)();
#define SLUICE_ENTRY(name) &name,
constexpr auto families = std::to_array<FamilyFunction>({SLUICE_FAMILIES(SLUICE_ENTRY)});
#undef SLUICE_ENTRY

void refuse_unknown_overrides(const Family& family, const HfConfig& config) {
  for (const auto& [key, field] : config.fields()) {
    if (!field.overridden || config.was_read(key) || reason_to_ignore(family, key, true)) continue;
    std::vector<std::string> known;
    for (const std::string& name : config.names_read()) {
      if (name.find('.') == std::string::npos) known.push_back(name);
    }
    const std::string near = nearest(key, known);
    throw user_error("model.config.{} is not a field of {}", key, family.model_type)
        .at(field.where)
        .advise(near.empty() ? fmt::format("it reads: {}", fmt::join(known, ", "))
                             : fmt::format("did you mean model.config.{}?", near));
  }
}

const Family& family_of(const HfConfig& config) {
  return find_family(config.text("model_type"), config.where("model_type"));
}

}  // namespace

int64_t HubTensor::hub_index(int64_t i) const {
  if (order == Order::same) return i;
  const int last = hub_shape.rank() - 1;
  const int64_t height = hub_shape[last];  // of our matrix
  const int64_t width = order == Order::interleaved ? 1 : hub_shape[last - 1];
  const int64_t matrix = i / (height * width), column = i % width;
  int64_t at = i / width % height;
  if (order != Order::transposed) at = at < height / 2 ? 2 * at : 2 * at - height + 1;
  return (matrix * width + column) * height + at;
}

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const FamilyFunction family : families) names.emplace_back(family().model_type);
  return names;
}

const Family& find_family(std::string_view model_type, std::string_view where) {
  for (const FamilyFunction family : families) {
    if (family().model_type == model_type) return family();
  }
  throw user_error("model_type {} is not a family that sluice has", to_text(std::string(model_type)))
      .at(std::string(where))
      .advise(fmt::format("it has: {}", fmt::join(family_names(), ", ")));
}

const Family& family_of(const ModelConfig& model) {
  return find_family(model.model_type);
}

RecomputePolicy pieces_of(const ModelConfig& model, const RecomputePolicy& policy) {
  return family_of(model).block(model, 0, 1).pieces_of(policy);
}

ModelConfig make_model(const HfConfig& config) {
  const Family& family = family_of(config);
  ModelConfig model = family.parse(config);
  refuse_unknown_overrides(family, config);
  model.model_type = family.model_type;
  model.name = family.model_type;
  validate(model, config, family.experts_key);
  return model;
}

double model_flops_per_sequence(const ModelConfig& model, int64_t seq_len) {
  require(seq_len > 0, "a sequence of {} tokens", seq_len);
  return family_of(model).flops_per_sequence(model, seq_len);
}

ParamCount param_count(const ModelConfig& model) {
  ParamCount count;
  int64_t routed = 0;
  for (const HubTensor& tensor : family_of(model).tensors(model)) {
    if (tensor.repeated) continue;
    const int64_t elements = tensor.hub_shape.numel();
    count.total += elements;
    if (tensor.expert != HubTensor::kNoExpert) routed += elements;
    if (tensor.parameter == "embedding.weight" || tensor.parameter == "head.weight") count.embedding += elements;
  }
  count.active = count.total - routed;
  if (model.num_experts > 0) count.active += routed / model.num_experts * model.top_k;
  return count;
}

}  // namespace sluice
