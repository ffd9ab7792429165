#include "moe_layer.h"

#include <optional>

namespace sluice {

namespace {

struct Part {
  const char* name;
  const char* what;  // behind that of the layer
};

constexpr double kForward = 500, kBackward = 480;
constexpr const char* kUp = ", gate and up";
constexpr const char* kDown = ", down";
constexpr const char* kUpInput = ", gate and up, input gradient";
constexpr const char* kDownInput = ", down, input gradient";

const std::vector<Part> kForwardParts{{"expert_sort", ""},   {"gather_rows", ""},     {"gather_rows", ", weights"},
                                      {"grouped_gemm", kUp}, {"grouped_gemm", kDown}, {"swiglu_forward", ""},
                                      {"sum_rows", ""}};
const std::vector<Part> kBackwardParts{
    {"gather_rows", ""},     {"grouped_gemm", kDownInput}, {"grouped_gemm_weight", kDown},
    {"swiglu_backward", ""}, {"grouped_gemm", kUpInput},   {"grouped_gemm_weight", kUp},
    {"sum_rows", ""}};

std::optional<MoeLayer> layer_of(const std::vector<TimedOp>& timed, const std::string& what,
                                 const std::string& direction, const std::vector<Part>& parts, double tflops) {
  MoeLayer layer{.what = what, .direction = direction, .floor = product_floor(tflops)};
  for (const Part& part : parts) {
    const TimedOp* found = nullptr;
    for (const TimedOp& op : timed) {
      if (op.name == part.name && op.what == what + part.what && op.time.median > 0) found = &op;
    }
    if (found == nullptr) return std::nullopt;
    layer.seconds += found->time.median;
    if (found->name.starts_with("grouped_gemm")) layer.flops += found->cost.flops;
  }
  return layer;
}

}  // namespace

std::vector<MoeLayer> moe_layers(const std::vector<TimedOp>& timed) {
  std::vector<MoeLayer> layers;
  for (const TimedOp& op : timed) {
    if (op.name != "expert_sort") continue;
    const auto forward = layer_of(timed, op.what, "forward", kForwardParts, kForward);
    const auto backward = layer_of(timed, op.what, "backward", kBackwardParts, kBackward);
    if (forward) layers.push_back(*forward);
    if (backward) layers.push_back(*backward);
  }
  return layers;
}

}  // namespace sluice
