// What a configuration asks for and does not get is said, and nothing else is.
#include <fmt/core.h>

#include "config/support.h"

namespace sluice::config {
namespace {

std::string said(const std::vector<std::string>& arguments) {
  Config config = parse("model: {config: {model_type: qwen3_moe}}\n", "my.yaml");
  override_with(config, arguments);
  std::string text;
  for (const Unavailable& each : unavailable(config)) {
    text += fmt::format("{}: {} {}: {}\n", each.where, each.key, each.value, each.instead);
  }
  return text;
}

TEST(Unavailable, AForcedGateHasNoRouter) {
  const std::string published = "--model.backend.fake_balanced_gate", skewed = "--benchmark.balance=skewed";
  const std::pair<std::string, std::string> keys[] = {{"model.aux_loss_over", "global_batch"},
                                                      {"model.aux_loss_coef", "0.5"},
                                                      {"model.router_z_loss_coef", "0.25"},
                                                      {"model.gate_bias_update_factor", "0.125"}};
  for (const auto& [key, value] : keys) {
    const std::string given = fmt::format("--{}={}", key, value);
    EXPECT_EQ(
        said({published, given}),
        fmt::format("command line: {} {}: a forced gate (published) sends tokens to experts, and there is no router\n",
                    key, value));
    EXPECT_EQ(
        said({skewed, given}),
        fmt::format("command line: {} {}: a forced gate (skewed) sends tokens to experts, and there is no router\n",
                    key, value));
    EXPECT_EQ(said({"--benchmark.balance=router", published, given}), "");
    EXPECT_EQ(said({given}), "");
  }
  // What is off is off.
  EXPECT_EQ(said({published}), "");
  EXPECT_EQ(said({published, "--model.aux_loss_coef=0", "--model.aux_loss_over=null", "--model.router_z_loss_coef=0",
                  "--model.gate_bias_update_factor=0"}),
            "");
}

TEST(Unavailable, ALossWithoutWeightIsOverNothing) {
  EXPECT_EQ(said({"--model.aux_loss_coef=0", "--model.aux_loss_over=sequence"}),
            "command line: model.aux_loss_over sequence: the balance loss has weight 0 (model.aux_loss_coef)\n");
  EXPECT_EQ(said({"--model.aux_loss_coef=0.1", "--model.aux_loss_over=sequence"}), "");
}

}  // namespace
}  // namespace sluice::config
