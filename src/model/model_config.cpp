#include "model/model_config.h"

#include "base/error.h"
#include "base/text.h"

namespace sluice {

void validate(const ModelConfig& model, const HfConfig& source, std::string_view experts_key) {
  if (model.num_heads % model.num_kv_heads != 0) {
    throw user_error("num_attention_heads {} is not a multiple of num_key_value_heads {}", model.num_heads,
                     model.num_kv_heads)
        .at(source.where("num_attention_heads"))
        .advise(fmt::format("the other value: {}", source.describe("num_key_value_heads")));
  }
  if (model.head_dim % 2 != 0) {
    throw user_error("head_dim is {}; rotary positions need an even one", model.head_dim).at(source.where("head_dim"));
  }
  if (model.top_k > model.num_experts) {
    throw user_error("num_experts_per_tok {} is more than {} {}", model.top_k, experts_key, model.num_experts)
        .at(source.where("num_experts_per_tok"))
        .advise(fmt::format("the other value: {}", source.describe(experts_key)));
  }
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double hidden = real(model.hidden_size), layers = real(model.num_layers), experts = real(model.num_experts);
  const double attention = 2 * hidden * real(model.head_dim) * real(model.num_heads + model.num_kv_heads);
  const double moe = experts * hidden * (1 + 3 * real(model.moe_ffn)) + 3 * hidden * real(model.ffn);
  const double total = layers * (attention + moe) + 2 * real(model.vocab_size) * hidden;
  if (total > model_bounds::parameters) {
    throw user_error("a model of {} parameters; at most {} are possible", format_magnitude(total),
                     format_magnitude(model_bounds::parameters))
        .at(source.source());
  }
  if (layers * experts > model_bounds::expert_stacks) {
    throw user_error("num_hidden_layers {} x {} {}: more than {} experts in all", model.num_layers, experts_key,
                     model.num_experts, static_cast<int64_t>(model_bounds::expert_stacks))
        .at(source.where(experts_key));
  }
}

}  // namespace sluice
