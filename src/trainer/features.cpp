#include "trainer/features.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

namespace sluice {

namespace {

using Parts = std::vector<std::string>;

void add_if(Parts& parts, bool on, std::string text) {
  if (on) parts.push_back(std::move(text));
}

std::string attention(const std::vector<BlockConfig>& blocks) {
  const BlockConfig& first = blocks.front();
  Parts parts{std::visit([](const auto& config) { return config.str(); }, first.attention)};
  const auto windowed =
      std::count_if(blocks.begin(), blocks.end(), [](const BlockConfig& b) { return b.sizes().window > 0; });
  add_if(parts, windowed > 0,
         fmt::format("window {} in {} of {} layers", first.sizes().window, windowed, blocks.size()));
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string experts(const MoeConfig& moe, bool shared) {
  Parts parts{fmt::format("{} experts, {} a token", moe.stored_experts(), moe.top_k)};
  add_if(parts, shared, "a shared one");
  add_if(parts, moe.expert_bias, "biases");
  add_if(parts, moe.gate_form.limit > 0, "clamped gate");
  return fmt::format("{}", fmt::join(parts, ", "));
}

std::string_view balance_over(BalanceOver over) {
  switch (over) {
    case BalanceOver::sequence:
      return " of each sequence";
    case BalanceOver::global_batch:
      return " of the global batch";
    case BalanceOver::micro_batch:
      break;
  }
  return "";
}

std::string router(const MoeConfig& moe) {
  Parts parts;
  switch (moe.router) {
    case RouterKind::forced:
      return "forced gate, no router";
    case RouterKind::softmax_topk:
      parts.emplace_back("softmax router");
      break;
    case RouterKind::sigmoid_topk:
      parts.emplace_back("sigmoid router");
      add_if(parts, moe.sigmoid.groups > 1, fmt::format("{} of {} groups", moe.sigmoid.top_groups, moe.sigmoid.groups));
      parts.emplace_back("selection bias");
      break;
  }
  add_if(parts, !moe.renormalize, "weights not renormalised");
  add_if(parts, moe.router_bias, "bias");
  add_if(parts, moe.aux_loss_coef > 0,
         fmt::format("balance loss{} x{:g}", balance_over(moe.balance_over()), moe.aux_loss_coef));
  add_if(parts, moe.router_z_coef > 0, fmt::format("z-loss x{:g}", moe.router_z_coef));
  return fmt::format("{}", fmt::join(parts, ", "));
}

// "YaRN x40"
std::string positions(const RopeScaling& scaling) {
  if (scaling.factor <= 1) return "rotary positions";
  const std::string_view kind = scaling.original > 0 ? "Llama 3 positions"
                                : scaling.end < 0    ? "linear positions"
                                                     : "YaRN";
  return fmt::format("{} x{:g}", kind, scaling.factor);
}

}  // namespace

std::string describe_features(const StageConfig& model) {
  require(!model.blocks.empty(), "a model without blocks");
  Parts parts{attention(model.blocks)};
  parts.push_back(positions(model.rope_scaling));
  const auto with_experts = std::find_if(model.blocks.begin(), model.blocks.end(),
                                         [](const BlockConfig& b) { return b.moe.num_experts > 0; });
  const auto dense = std::count_if(model.blocks.begin(), model.blocks.end(),
                                   [](const BlockConfig& b) { return b.moe.num_experts == 0; });
  add_if(parts, dense > 0, fmt::format("{} dense layer{}", dense, dense == 1 ? "" : "s"));
  if (with_experts != model.blocks.end()) {
    parts.push_back(experts(with_experts->moe, with_experts->mlp_ffn > 0));
    parts.push_back(router(with_experts->moe));
  }
  add_if(parts, model.mtp.has_value(), "an extra layer for the token after the next");
  add_if(parts, model.z_loss_coef > 0, fmt::format("z-loss of the logits x{:g}", model.z_loss_coef));
  return fmt::format("{}", fmt::join(parts, " | "));
}

}  // namespace sluice
