#include "model/family.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"

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

// Fields of any Hugging Face configuration that say nothing about the network.
constexpr auto harmless = std::to_array<IgnoredField>({
    {"_name_or_path", "a label"},
    {"architectures", "model_type decides"},
    {"auto_map", "no Python is run"},
    {"bos_token_id", "a matter of the tokenizer"},
    {"chunk_size_feed_forward", "a setting of Python modules"},
    {"dtype", "runtime.dtype decides"},
    {"eos_token_id", "a matter of the tokenizer"},
    {"id2label", "a label"},
    {"label2id", "a label"},
    {"output_attentions", "a setting of Python modules"},
    {"output_hidden_states", "a setting of Python modules"},
    {"pad_token_id", "a matter of the tokenizer"},
    {"pretraining_tp", "a setting of Python modules"},
    {"quantization_config", "how stored weights are packed, not the network"},
    {"return_dict", "a setting of Python modules"},
    {"torch_dtype", "runtime.dtype decides"},
    {"transformers_version", "a label"},
    {"use_cache", "a setting of generation"},
});

// Whether `key` is `field` or lies below it.
bool covers(std::string_view field, std::string_view key) {
  return key.starts_with(field) && (key.size() == field.size() || key[field.size()] == '.');
}

bool reads(const Family& family, std::string_view key) {
  return std::any_of(family.reads.begin(), family.reads.end(), [&](auto field) { return covers(field, key); });
}

const IgnoredField* ignored(const Family& family, std::string_view key) {
  for (const std::span<const IgnoredField> list : {family.ignores, std::span<const IgnoredField>(harmless)}) {
    for (const IgnoredField& field : list) {
      if (covers(field.key, key)) return &field;
    }
  }
  return nullptr;
}

void refuse_unknown_overrides(const Family& family, const HfConfig& config) {
  for (const auto& [key, field] : config.fields()) {
    if (!field.overridden || reads(family, key) || ignored(family, key) != nullptr) continue;
    std::vector<std::string> known(family.reads.begin(), family.reads.end());
    const std::string near = nearest(key, known);
    std::sort(known.begin(), known.end());
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

ModelConfig make_model(const HfConfig& config) {
  const Family& family = family_of(config);
  refuse_unknown_overrides(family, config);
  ModelConfig model = family.parse(config);
  model.model_type = family.model_type;
  model.name = family.model_type;
  validate(model, config, family.experts_key);
  return model;
}

std::vector<IgnoredHfField> ignored_fields(const HfConfig& config) {
  const Family& family = family_of(config);
  std::vector<IgnoredHfField> list;
  for (const auto& [key, field] : config.fields()) {
    if (reads(family, key)) continue;
    const IgnoredField* known = ignored(family, key);
    list.push_back(
        {key, field.where,
         known != nullptr ? std::string(known->reason) : fmt::format("not a field of {}", family.model_type)});
  }
  return list;
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
