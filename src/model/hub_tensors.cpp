#include "model/hub_tensors.h"

namespace sluice {

void HubTensorList::whole(std::string hub, std::string ours, Shape shape) {
  const int64_t rows = shape.rank() == 1 ? shape[0] : shape.numel() / shape[shape.rank() - 1];
  list_.push_back({std::move(hub), shape, std::move(ours), shape, 0, rows});
}

void HubTensorList::part(std::string hub, const std::string& ours, const Shape& shape, int64_t row, int64_t rows) {
  const Shape hub_shape = shape.rank() == 1 ? Shape{rows} : Shape{rows, shape[1]};
  list_.push_back({std::move(hub), hub_shape, ours, shape, row, rows});
}

void HubTensorList::stack(std::string hub, std::string ours, Shape shape, Shape hub_shape, HubTensor::Order order) {
  const int64_t rows = shape.numel() / shape[shape.rank() - 1];
  list_.push_back({.hub_name = std::move(hub),
                   .hub_shape = hub_shape,
                   .parameter = std::move(ours),
                   .parameter_shape = shape,
                   .row = 0,
                   .rows = rows,
                   .expert = HubTensor::kAllExperts,
                   .order = order});
}

void HubTensorList::embedding() {
  whole("model.embed_tokens.weight", "embedding.weight", {model_.vocab_size, model_.hidden_size});
}

void HubTensorList::head() {
  whole("model.norm.weight", "final_norm.gamma", {model_.hidden_size});
  whole("lm_head.weight", model_.tied_head ? "embedding.weight" : "head.weight",
        {model_.vocab_size, model_.hidden_size});
  if (!model_.tied_head) return;
  list_.back().repeated = true;
  list_.back().exported = false;
}

void HubTensorList::extra_layer(int64_t layer) {
  const std::string hub = hub_layer(layer), ours = our_layer(layer);
  const int64_t D = model_.hidden_size;
  const Shape words{model_.vocab_size, D};
  whole(hub + "enorm.weight", ours + "enorm.gamma", {D});
  whole(hub + "hnorm.weight", ours + "hnorm.gamma", {D});
  whole(hub + "eh_proj.weight", ours + "eh_proj.weight", {D, 2 * D});
  whole(hub + "shared_head.norm.weight", ours + "final_norm.gamma", {D});
  whole(hub + "embed_tokens.weight", "embedding.weight", words);
  list_.back().repeated = true;
  whole(hub + "shared_head.head.weight", "head.weight", words);
  list_.back().repeated = true;
}

void HubTensorList::norm_before(int64_t layer) {
  whole(hub_layer(layer) + "input_layernorm.weight", our_layer(layer) + "norm1.gamma", {model_.hidden_size});
}

void HubTensorList::norm_after(int64_t layer) {
  whole(hub_layer(layer) + "post_attention_layernorm.weight", our_layer(layer) + "norm2.gamma", {model_.hidden_size});
}

void HubTensorList::attention(int64_t layer, bool sinks) {
  const std::string hub = hub_layer(layer) + "self_attn.", ours = our_layer(layer) + "attention.";
  const int64_t D = model_.hidden_size, hd = model_.head_dim;
  const int64_t q_rows = model_.num_heads * hd, kv_rows = model_.num_kv_heads * hd;
  const auto qkv = [&](const std::string& kind, const Shape& shape) {
    part(hub + "q_proj." + kind, ours + "qkv." + kind, shape, 0, q_rows);
    part(hub + "k_proj." + kind, ours + "qkv." + kind, shape, q_rows, kv_rows);
    part(hub + "v_proj." + kind, ours + "qkv." + kind, shape, q_rows + kv_rows, kv_rows);
  };
  norm_before(layer);
  qkv("weight", {q_rows + 2 * kv_rows, D});
  if (model_.attention_bias) qkv("bias", {q_rows + 2 * kv_rows});
  if (model_.qk_norm) {
    whole(hub + "q_norm.weight", ours + "q_norm.gamma", {hd});
    whole(hub + "k_norm.weight", ours + "k_norm.gamma", {hd});
  }
  if (sinks) whole(hub + "sinks", ours + "sinks", {model_.num_heads});
  whole(hub + "o_proj.weight", ours + "out.weight", {D, q_rows});
  if (model_.attention_bias) whole(hub + "o_proj.bias", ours + "out.bias", {D});
  norm_after(layer);
}

void HubTensorList::latent_attention(int64_t layer) {
  const std::string hub = hub_layer(layer) + "self_attn.", ours = our_layer(layer) + "attention.";
  const int64_t D = model_.hidden_size, n = model_.num_heads, dn = model_.nope_dim, dr = model_.head_dim;
  const int64_t queries = n * (dn + dr), q_rows = model_.q_lora > 0 ? model_.q_lora : queries;
  const Shape down{q_rows + model_.kv_lora + dr, D};
  norm_before(layer);
  part(hub + (model_.q_lora > 0 ? "q_a_proj.weight" : "q_proj.weight"), ours + "down.weight", down, 0, q_rows);
  part(hub + "kv_a_proj_with_mqa.weight", ours + "down.weight", down, q_rows, model_.kv_lora + dr);
  if (model_.q_lora > 0) {
    whole(hub + "q_a_layernorm.weight", ours + "q_norm.gamma", {model_.q_lora});
    whole(hub + "q_b_proj.weight", ours + "q_up.weight", {queries, model_.q_lora});
  }
  whole(hub + "kv_a_layernorm.weight", ours + "kv_norm.gamma", {model_.kv_lora});
  whole(hub + "kv_b_proj.weight", ours + "kv_up.weight", {n * (dn + model_.v_dim), model_.kv_lora});
  whole(hub + "o_proj.weight", ours + "out.weight", {D, n * model_.v_dim});
  norm_after(layer);
}

void HubTensorList::mlp(int64_t layer, const std::string& hub_name, int64_t width) {
  const std::string hub = hub_layer(layer) + hub_name, ours = our_layer(layer) + "mlp.";
  const int64_t D = model_.hidden_size;
  const Shape gate_up{2 * width, D};
  part(hub + "gate_proj.weight", ours + "gate_up.weight", gate_up, 0, width);
  part(hub + "up_proj.weight", ours + "gate_up.weight", gate_up, width, width);
  whole(hub + "down_proj.weight", ours + "down.weight", {D, width});
}

void HubTensorList::router(int64_t layer, const std::string& hub_name, bool bias, bool selection_bias) {
  const std::string hub = hub_layer(layer) + hub_name, ours = our_layer(layer) + "moe.router.";
  const int64_t E = model_.num_experts;
  whole(hub + ".weight", ours + "weight", {E, model_.hidden_size});
  if (bias) whole(hub + ".bias", ours + "bias", {E});
  if (selection_bias) whole(hub + ".e_score_correction_bias", ours + "selection_bias", {E});
}

void HubTensorList::experts(int64_t layer) {
  const std::string hub = hub_layer(layer) + "mlp.experts.", ours = our_layer(layer) + "moe.experts.";
  const int64_t D = model_.hidden_size, E = model_.num_experts, F = model_.moe_ffn;
  const Shape gate_up{E, 2 * F, D}, down{E, D, F};
  for (int64_t e = 0; e < E; ++e) {
    const std::string expert = fmt::format("{}{}.", hub, e);
    list_.push_back({expert + "gate_proj.weight", {F, D}, ours + "gate_up", gate_up, 2 * F * e, F, e});
    list_.push_back({expert + "up_proj.weight", {F, D}, ours + "gate_up", gate_up, 2 * F * e + F, F, e});
    list_.push_back({expert + "down_proj.weight", {D, F}, ours + "down", down, D * e, D, e});
  }
}

void HubTensorList::stacked_experts(int64_t layer) {
  const std::string hub = hub_layer(layer) + "mlp.experts.", ours = our_layer(layer) + "moe.experts.";
  const int64_t D = model_.hidden_size, E = model_.num_experts, F = model_.moe_ffn;
  using Order = HubTensor::Order;
  stack(hub + "gate_up_proj", ours + "gate_up", {E, 2 * F, D}, {E, D, 2 * F}, Order::interleaved_transposed);
  stack(hub + "gate_up_proj_bias", ours + "gate_up_bias", {E, 2 * F}, {E, 2 * F}, Order::interleaved);
  stack(hub + "down_proj", ours + "down", {E, D, F}, {E, F, D}, Order::transposed);
  stack(hub + "down_proj_bias", ours + "down_bias", {E, D}, {E, D}, Order::same);
}

}  // namespace sluice
