#include "nn/block.h"

#include <array>

namespace sluice {

namespace {

// What a block keeps when everything is rebuilt from its input: the arenas say so, the modules need not know.
constexpr RecomputePolicy kKeepAll{};

constexpr std::array kPhaseNames{"attention", "dispatch", "experts", "combine"};
static_assert(kPhaseNames.size() == Block::kPhases);

const RecomputePolicy& pieces(const RecomputePolicy& recompute) {
  return recompute.full ? kKeepAll : recompute;
}

}  // namespace

Block::Block(const std::string& name, const BlockConfig& config, Communicator& ep)
    : name_(name),
      norm1_(name + ".norm1", config.hidden(), config.norm_eps),
      attention_(name + ".attention", config.attention, config.norm_eps, config.init_std),
      norm2_(name + ".norm2", config.hidden(), config.norm_eps) {
  require(config.moe.num_experts > 0 || config.mlp_ffn > 0, "{} has neither experts nor an MLP", name);
  if (config.moe.num_experts > 0) moe_.emplace(name + ".moe", config.moe, ep, config.init_std);
  if (config.mlp_ffn > 0) mlp_.emplace(name + ".mlp", config.hidden(), config.mlp_ffn, config.init_std);
}

void Block::visit(const ParamVisitor& visitor) {
  norm1_.visit(visitor);
  attention_.visit(visitor);
  norm2_.visit(visitor);
  if (moe_) moe_->visit(visitor);
  if (mlp_) mlp_->visit(visitor);
}

void Block::share_normed(const Tensor& normed, BlockSaved& saved) const {
  saved.moe.x = saved.moe.router.x = normed;
  saved.mlp.x = normed;
}

// From saved.x to saved.mid and the normed input of experts and MLP, which it returns.
Tensor Block::attend(Context& ctx, const BlockInput& input, const RecomputePolicy& recompute, BlockSaved& saved) const {
  const Tensor& x = saved.x;
  Arena& kept = ctx.activations();
  Arena& norms = recompute.norm ? ctx.scratch() : ctx.deferred();
  saved.rstd1 = kept.empty({x.dim(0)}, ctx.accumulator());
  Tensor normed1 = norms.empty_like(x);
  norm1_.forward(ctx, normed1, saved.rstd1, x);
  const Tensor attended = attention_.forward(ctx, normed1, input.cos_sin, recompute, saved.attention, input.cache);
  saved.mid = kept.empty_like(x);
  saved.rstd2 = kept.empty({x.dim(0)}, ctx.accumulator());
  Tensor normed2 = (needs_normed(recompute) ? norms : ctx.scratch()).empty_like(x);
  norm2_.forward_residual(ctx, saved.mid, normed2, saved.rstd2, x, attended);
  return normed2;
}

// y = mid + experts + MLP. The MLP runs while the experts' outputs travel.
void Block::finish(Context& ctx, const Tensor& y, const RecomputePolicy& recompute, BlockSaved& saved) const {
  Tensor dense = saved.mid;
  if (mlp_) {
    dense = moe_ ? ctx.scratch().empty_like(y) : y;
    ctx.run(Copy{.y = dense, .x = saved.mid});
    mlp_->forward(ctx, dense, saved.mlp.x, recompute, saved.mlp);
  }
  if (moe_) moe_->combine(ctx, y, dense, saved.moe);
}

// "layers.3 experts". The last phase of a dense block is its MLP.
std::string Block::phase_name(int phase) const {
  const bool mlp = !moe_ && phase == kPhases - 1;
  return name_ + " " + (mlp ? "mlp" : kPhaseNames.at(static_cast<size_t>(phase)));
}

void Block::forward_phase(Context& ctx, int phase, const Tensor& y, const Tensor& x, const BlockInput& input,
                          const RecomputePolicy& recompute, BlockSaved& saved) const {
  const NameScope scope(ctx, name_);
  const bool runs = moe_ || phase == 0 || phase == kPhases - 1;
  const RangeScope range(runs ? ctx.ranges() : nullptr, [&] { return phase_name(phase); });
  const RecomputePolicy& dropped = pieces(recompute);
  switch (phase) {
    case 0:
      saved.x = x;
      share_normed(attend(ctx, input, dropped, saved), saved);
      if (moe_) moe_->route(ctx, saved.moe.x, input.sample_ids, saved.moe, input.forecast, input.load);
      break;
    case 1:
      if (moe_) moe_->dispatch(ctx, saved.moe);
      break;
    case 2:
      if (moe_) moe_->compute(ctx, dropped, saved.moe);
      break;
    case 3:
      finish(ctx, y, dropped, saved);
      break;
    default:
      require(false, "a block has no forward phase {}", phase);
  }
}

void Block::forward(Context& ctx, const Tensor& y, const Tensor& x, const BlockInput& input,
                    const RecomputePolicy& recompute, BlockSaved& saved) const {
  for (int phase = 0; phase < kPhases; ++phase) forward_phase(ctx, phase, y, x, input, recompute, saved);
}

void Block::rebuild(Context& ctx, const BlockInput& input, const RecomputePolicy& recompute, BlockSaved& saved) const {
  if (!recompute.any()) return;
  const NameScope scope(ctx, name_);
  const RangeScope range(ctx.ranges(), [&] { return name_ + " recompute"; });
  if (recompute.full) {
    share_normed(attend(ctx, input, kKeepAll, saved), saved);
    RecomputePolicy everything;
    everything.dispatch = everything.experts = true;
    if (moe_) moe_->rebuild(ctx, everything, saved.moe);
    if (mlp_) mlp_->rebuild(ctx, everything, saved.mlp);
    return;
  }
  Tensor normed1;
  if (recompute.norm) {
    // The statistics are kept, but recomputing them costs nothing extra: the row is read anyway.
    normed1 = ctx.deferred().empty_like(saved.x);
    norm1_.forward(ctx, normed1, saved.rstd1, saved.x);
    if (needs_normed(recompute)) {
      share_normed(ctx.deferred().empty_like(saved.x), saved);
      norm2_.forward(ctx, saved.mlp.x, saved.rstd2, saved.mid);
    }
  }
  attention_.rebuild(ctx, normed1, input.cos_sin, recompute, saved.attention);
  if (moe_) moe_->rebuild(ctx, recompute, saved.moe);
  if (mlp_) mlp_->rebuild(ctx, recompute, saved.mlp);
}

// From the gradient of y (through saved.mid and the MLP) and the experts' input gradient to dx.
void Block::attend_backward(Context& ctx, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                            BlockSaved& saved) const {
  Arena& scratch = ctx.scratch();
  const Tensor dnormed = scratch.empty_like(dy);
  if (moe_) moe_->route_backward(ctx, dnormed, saved.moe, input.grad_scale);
  if (mlp_) mlp_->backward(ctx, dnormed, dy, moe_.has_value(), saved.mlp);
  saved.dmid = ctx.deferred().empty_like(dy);
  norm2_.backward(ctx, saved.dmid, dnormed, saved.mid, saved.rstd2, dy);
  attention_.backward(ctx, dnormed, saved.dmid, input.cos_sin, saved.attention);
  norm1_.backward(ctx, dx, dnormed, saved.x, saved.rstd1, saved.dmid);
}

void Block::backward_phase(Context& ctx, int phase, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                           BlockSaved& saved) const {
  const NameScope scope(ctx, name_);
  const bool runs = moe_ || phase == 0;
  const RangeScope range(runs ? ctx.ranges() : nullptr, [&] { return phase_name(phase); });
  switch (phase) {
    case 3:
      if (moe_) moe_->combine_backward(ctx, dy, saved.moe);
      break;
    case 2:
      if (moe_) moe_->compute_backward(ctx, saved.moe);
      break;
    case 1:
      if (moe_) moe_->dispatch_backward(ctx, saved.moe);
      break;
    case 0:
      attend_backward(ctx, dx, dy, input, saved);
      break;
    default:
      require(false, "a block has no backward phase {}", phase);
  }
}

void Block::backward(Context& ctx, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                     BlockSaved& saved) const {
  for (int phase = kPhases - 1; phase >= 0; --phase) backward_phase(ctx, phase, dx, dy, input, saved);
}

void Block::weight_grad(Context& ctx, const BlockSaved& saved) const {
  const NameScope scope(ctx, name_);
  const RangeScope range(ctx.ranges(), [&] { return name_ + " weight gradients"; });
  attention_.weight_grad(ctx, saved.attention);
  if (moe_) moe_->weight_grad(ctx, saved.moe);
  if (mlp_) mlp_->weight_grad(ctx, saved.mlp);
}

}  // namespace sluice
