#include "model/model_config.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace sluice {

bool ModelConfig::has_experts(int64_t layer) const {
  return num_experts > 0 && layer >= dense_layers && (layer + 1) % sparse_step == 0 &&
         std::ranges::find(mlp_layers, layer) == mlp_layers.end();
}

int64_t ModelConfig::count_with_experts() const {
  int64_t count = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) count += has_experts(layer) ? 1 : 0;
  return count;
}

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
  const SigmoidRouterSpec& router = model.sigmoid;
  if (router.top_groups > router.groups || (model.num_experts > 0 && model.num_experts % router.groups != 0)) {
    throw user_error("{} {} in n_group {}, of which topk_group {} are used", experts_key, model.num_experts,
                     router.groups, router.top_groups)
        .at(source.where("n_group"))
        .advise("n_group divides the experts, and topk_group is at most n_group");
  }
  if (model.top_k > model.num_experts / router.groups * router.top_groups) {
    throw user_error("num_experts_per_tok {} is more than topk_group {} of n_group {} groups of {} {} hold",
                     model.top_k, router.top_groups, router.groups, experts_key, model.num_experts)
        .at(source.where("num_experts_per_tok"));
  }
  const auto real = [](int64_t v) { return static_cast<double>(v); };
  const double hidden = real(model.hidden_size), layers = real(model.num_layers), experts = real(model.num_experts);
  const double gqa = 2 * hidden * real(model.head_dim) * real(model.num_heads + model.num_kv_heads);
  const double latents = real(model.q_lora + model.kv_lora), head = real(model.nope_dim + model.head_dim + model.v_dim);
  const double attention = model.kv_lora > 0 ? (hidden + latents) * real(model.num_heads) * head : gqa;
  const double moe =
      (experts + real(model.shared_experts)) * hidden * (1 + 3 * real(model.moe_ffn)) + 3 * hidden * real(model.ffn);
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
