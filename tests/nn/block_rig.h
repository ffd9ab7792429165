// A block of one rank between an input and an output gradient, its arenas bound the way the runtime binds them: what a
// phase does not keep holds NaN when the next begins.
#pragma once

#include <memory>
#include <optional>

#include "comm/inproc/inproc.h"
#include "module.h"
#include "nn/block.h"

namespace sluice::test {

// Routed experts behind a router of this kind (none: no experts), an MLP of width `mlp_ffn` (0: none), latent or
// grouped-query attention; the latter and experts with biases, sinks, a window and the clamped gate, as in GPT-OSS.
struct BlockKind {
  std::optional<RouterKind> router = RouterKind::softmax_topk;
  int64_t mlp_ffn = 0;
  bool latent = false;
  bool biases = false;
};

class BlockRig {
 public:
  BlockRig(TestContext& tc, const BlockKind& kind);

  // Forward, rebuild, backward and weight gradients; with `defer` these come in a phase of their own, after the
  // activations are gone.
  Program program(const RecomputePolicy& recompute, bool defer);
  // Draws an input with a comfortable routing margin if the router is learned.
  void draw_input();

 private:
  std::vector<Tensor> forward(Context& ctx, const RecomputePolicy& recompute, bool defer);
  std::vector<Tensor> backward(Context& ctx, const Tensor& dy, const RecomputePolicy& recompute, bool defer);

  TestContext& tc_;
  std::unique_ptr<Memory> memory_;
  Arena activations_{*memory_, MemoryKind::activations, "rig activations"};
  Arena deferred_{*memory_, MemoryKind::activations, "rig deferred"};
  Arena scratch_{*memory_, MemoryKind::scratch, "rig scratch"};
  InprocWorld world_{1};
  std::unique_ptr<Communicator> ep_;
  BlockConfig config_;
  Block block_;
  std::vector<Variable> variables_;
  BlockInput input_;
  Tensor x_;
  Tensor y_;
  Tensor dx_;
  BlockSaved saved_;
};

}  // namespace sluice::test
