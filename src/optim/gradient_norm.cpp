#include "optim/gradient_norm.h"

namespace sluice {

void sum_gradient_squares(Context& ctx, Mesh& mesh, const std::vector<FlatGroup*>& groups, const Tensor& sum_squares) {
  const NameScope scope(ctx, "gradient_norm");
  ctx.run(Fill{.x = sum_squares, .value = 0});
  for (const FlatGroup* group : groups) {
    if (group->counts_for_norm()) ctx.run(Sum{.sum = sum_squares, .x = group->gradient_shard(), .squares = true});
  }
  mesh.world.all_reduce(ctx.compute(), sum_squares, ReduceOp::sum, "gradient norm").wait(ctx.compute());
}

}  // namespace sluice
