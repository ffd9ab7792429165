#include "parallel/model_end.h"

#include "parallel/stage.h"

namespace sluice {

ModelEnd::ModelEnd(const StageConfig& config, Communicator& ep, Embedding* embedding, Unit* embedding_unit,
                   const UnitMaker& make_unit)
    : embedding_(embedding), embedding_unit_(embedding_unit), tied_(config.tied_head) {
  if (embedding_ == nullptr && (config.mtp || tied_)) {
    own_embedding_ = std::make_unique<Embedding>("embedding", config.vocab, config.hidden, config.init_std);
    own_embedding_unit_ = make_unit("embedding copy", [&](const ParamVisitor& v) { own_embedding_->visit(v); });
    own_embedding_unit_.groups.front()->mark_as_copy();
    embedding_ = own_embedding_.get();
    embedding_unit_ = &own_embedding_unit_;
  }
  head_.emplace(config.vocab, config.hidden, config.norm_eps, config.init_std, config.z_loss_coef,
                tied_ ? &embedding_->weight() : nullptr);
  head_unit_ = make_unit("head", [&](const ParamVisitor& v) { head_->visit(v); });
  if (!config.mtp) return;
  const std::string name = "layers." + std::to_string(config.blocks.size());
  mtp_.emplace(name, *config.mtp, ep);
  mtp_unit_ = make_unit(name, [&](const ParamVisitor& v) { mtp_->visit(v); });
}

void ModelEnd::gather_head(Context& ctx) const {
  head_unit_.end_gather(ctx);
  if (tied_) embedding_unit_->end_gather(ctx);
}

void ModelEnd::release_head() const {
  head_unit_.release();
  if (tied_) embedding_unit_->release();
}

void ModelEnd::forward(Context& ctx, const Tensor& dx, const Tensor& x, const LossTensors& losses,
                       const BlockInput& input, const RecomputePolicy& recompute, ModelEndSaved& saved) {
  const bool further = mtp_ && dx.defined();
  Arena& scratch = ctx.scratch();
  Arena& kept = further ? ctx.records() : scratch;
  const ArenaScope freed(scratch);
  const Tensor normed = kept.empty_like(x), rstd = kept.empty({x.dim(0)}, ctx.accumulator());
  const Tensor loss = scratch.empty({x.dim(0)}, ctx.accumulator());
  gather_head(ctx);
  head_->forward(ctx, loss, dx, normed, rstd, x, saved.labels, losses.grad_scale);
  ctx.run(Sum{.sum = losses.loss, .x = loss});
  if (further) {
    saved.x = x;
    saved.rstd = rstd;
    saved.mtp.hidden = normed;
    saved.mtp.embedded = ctx.records().empty_like(x);
    embedding_unit_->end_gather(ctx);
    embedding_->forward(ctx, saved.mtp.embedded, saved.next_tokens);
    embedding_unit_->release();
    mtp_unit_.end_gather(ctx);
    mtp_->forward(ctx, loss, saved.next_labels, losses.mtp_grad_scale, *head_, input, recompute, saved.mtp);
    ctx.run(Sum{.sum = losses.mtp_loss, .x = loss});
    mtp_unit_.release();
  }
  release_head();
}

void ModelEnd::logits(Context& ctx, const Tensor& logits, const Tensor& x) const {
  gather_head(ctx);
  head_->logits(ctx, logits, x);
  release_head();
}

void ModelEnd::backward(Context& ctx, const Tensor& dx, const BlockInput& input, const RecomputePolicy& recompute,
                        bool full, ModelEndSaved& saved) {
  if (!mtp_) return;
  const ArenaScope freed(ctx.scratch());
  const Tensor dembedded = ctx.scratch().empty_like(dx), dhidden = ctx.scratch().empty_like(dx);
  mtp_unit_.end_gather(ctx);
  mtp_->backward(ctx, dembedded, dhidden, input, recompute, saved.mtp);
  if (full) mtp_->weight_grad(ctx, saved.mtp);
  mtp_unit_.release();
  embedding_->backward(ctx, dembedded, saved.next_tokens);
  gather_head(ctx);
  head_->norm_backward(ctx, dx, dhidden, saved.x, saved.rstd);
  release_head();
}

void ModelEnd::weight_grad(Context& ctx, const ModelEndSaved& saved) const {
  if (mtp_) mtp_->weight_grad(ctx, saved.mtp);
}

void ModelEnd::begin_reduce(Context& ctx) const {
  head_unit_.begin_reduce(ctx);
  mtp_unit_.begin_reduce(ctx);
  own_embedding_unit_.begin_reduce(ctx);
}

std::vector<Unit*> ModelEnd::units() {
  return {&head_unit_, &mtp_unit_, &own_embedding_unit_};
}

FlatGroup* ModelEnd::embedding_copy() const {
  return own_embedding_ ? own_embedding_unit_.groups.front().get() : nullptr;
}

}  // namespace sluice
