#include "optim/router_balance.h"

namespace sluice {

void balance_routers(Context& ctx, const std::vector<FlatGroup*>& groups, int64_t tokens, double rate) {
  const NameScope scope(ctx, "router_balance");
  for (FlatGroup* group : groups) {
    if (group->trained()) continue;
    const Tensor load = group->gradient_shard();
    for (const FlatGroup::Piece& piece : group->pieces()) {
      const ParamSpec& spec = piece.param->spec;
      const Tensor mine = load.rows(piece.offset, piece.value.numel());
      const auto slots = static_cast<double>(spec.balanced_top_k * tokens);
      if (spec.holds_shares) {
        ctx.run(LoadShare{.share = piece.value, .load = mine, .slots = slots});
      } else {
        ctx.run(BalanceBias{
            .bias = piece.value, .load = mine, .mean = slots / static_cast<double>(spec.shape[0]), .rate = rate});
      }
    }
    group->invalidate();
  }
}

}  // namespace sluice
