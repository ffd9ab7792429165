#include "nn/block.h"

namespace sluice {

namespace {

// What a block keeps when everything is rebuilt from its input: the arenas say so, the modules need not know.
constexpr RecomputePolicy kKeepAll{};

const RecomputePolicy& pieces(const RecomputePolicy& recompute) {
  return recompute.full ? kKeepAll : recompute;
}

}  // namespace

Block::Block(const std::string& name, const BlockConfig& config, const ExpertGroup& group)
    : name_(name),
      norm1_(name + ".norm1", config.attention.hidden, config.norm_eps),
      attention_(name + ".attention", config.attention, config.norm_eps, config.init_std),
      norm2_(name + ".norm2", config.attention.hidden, config.norm_eps),
      moe_(name + ".moe", config.moe, group, config.init_std) {}

void Block::visit(const ParamVisitor& visitor) {
  norm1_.visit(visitor);
  attention_.visit(visitor);
  norm2_.visit(visitor);
  moe_.visit(visitor);
}

// From saved.x to saved.mid and the normed input of the experts.
void Block::attend(Context& ctx, const BlockInput& input, const RecomputePolicy& recompute, BlockSaved& saved,
                   Tensor& normed) const {
  const Tensor& x = saved.x;
  Arena& kept = ctx.activations();
  Arena& norms = recompute.norm ? ctx.scratch() : ctx.deferred();
  saved.rstd1 = kept.empty({x.dim(0)}, ctx.accumulator());
  Tensor normed1 = norms.empty_like(x);
  norm1_.forward(ctx, normed1, saved.rstd1, x);
  const Tensor attended = attention_.forward(ctx, normed1, input.cos_sin, recompute, saved.attention);
  saved.mid = kept.empty_like(x);
  saved.rstd2 = kept.empty({x.dim(0)}, ctx.accumulator());
  normed = (moe_.needs_input(recompute) ? norms : ctx.scratch()).empty_like(x);
  norm2_.forward_residual(ctx, saved.mid, normed, saved.rstd2, x, attended);
}

void Block::forward_phase(Context& ctx, int phase, const Tensor& y, const Tensor& x, const BlockInput& input,
                          const RecomputePolicy& recompute, BlockSaved& saved) const {
  const NameScope scope(ctx, name_);
  const RecomputePolicy& dropped = pieces(recompute);
  switch (phase) {
    case 0: {
      saved.x = x;
      Tensor normed;
      attend(ctx, input, dropped, saved, normed);
      moe_.route(ctx, normed, input.sample_ids, saved.moe);
      break;
    }
    case 1:
      moe_.dispatch(ctx, saved.moe);
      break;
    case 2:
      moe_.compute(ctx, dropped, saved.moe);
      break;
    case 3:
      moe_.combine(ctx, y, saved.mid, saved.moe);
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
  if (recompute.full) {
    attend(ctx, input, kKeepAll, saved, saved.moe.x);
    saved.moe.router.x = saved.moe.x;
    RecomputePolicy everything;
    everything.dispatch = everything.experts = true;
    moe_.rebuild(ctx, everything, saved.moe);
    return;
  }
  if (recompute.norm) {
    // The statistics are kept, but recomputing them costs nothing extra: the row is read anyway.
    saved.attention.x = ctx.deferred().empty_like(saved.x);
    norm1_.forward(ctx, saved.attention.x, saved.rstd1, saved.x);
    if (moe_.needs_input(recompute)) {
      saved.moe.x = ctx.deferred().empty_like(saved.x);
      saved.moe.router.x = saved.moe.x;
      norm2_.forward(ctx, saved.moe.x, saved.rstd2, saved.mid);
    }
  }
  attention_.rebuild(ctx, input.cos_sin, recompute, saved.attention);
  moe_.rebuild(ctx, recompute, saved.moe);
}

// From the gradient of y (through saved.mid) and the experts' input gradient to dx.
void Block::attend_backward(Context& ctx, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                            BlockSaved& saved) const {
  Arena& scratch = ctx.scratch();
  const Tensor dnormed = scratch.empty_like(dy);
  moe_.route_backward(ctx, dnormed, saved.moe);
  saved.dmid = ctx.deferred().empty_like(dy);
  norm2_.backward(ctx, saved.dmid, dnormed, saved.mid, saved.rstd2, dy);
  attention_.backward(ctx, dnormed, saved.dmid, input.cos_sin, saved.attention);
  norm1_.backward(ctx, dx, dnormed, saved.x, saved.rstd1, saved.dmid);
}

void Block::backward_phase(Context& ctx, int phase, const Tensor& dx, const Tensor& dy, const BlockInput& input,
                           BlockSaved& saved) const {
  const NameScope scope(ctx, name_);
  switch (phase) {
    case 3:
      moe_.combine_backward(ctx, dy, saved.moe);
      break;
    case 2:
      moe_.compute_backward(ctx, saved.moe);
      break;
    case 1:
      moe_.dispatch_backward(ctx, saved.moe);
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
  attention_.weight_grad(ctx, saved.attention);
  moe_.weight_grad(ctx, saved.moe);
}

}  // namespace sluice
