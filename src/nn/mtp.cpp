#include "nn/mtp.h"

namespace sluice {

Mtp::Mtp(const std::string& name, const BlockConfig& config, Communicator& ep)
    : embedded_norm_(name + ".enorm", config.hidden(), config.norm_eps),
      hidden_norm_(name + ".hnorm", config.hidden(), config.norm_eps),
      projection_(name + ".eh_proj", 2 * config.hidden(), config.hidden(), config.init_std),
      block_(name, config, ep),
      norm_(name + ".final_norm", config.hidden(), config.norm_eps) {}

void Mtp::visit(const ParamVisitor& visitor) {
  embedded_norm_.visit(visitor);
  hidden_norm_.visit(visitor);
  projection_.visit(visitor);
  block_.visit(visitor);
  norm_.visit(visitor);
}

void Mtp::join(Context& ctx, const Tensor& joined, const MtpSaved& saved) const {
  const int64_t d = saved.hidden.dim(1);
  embedded_norm_.forward(ctx, joined.cols(0, d), saved.embedded_rstd, saved.embedded);
  hidden_norm_.forward(ctx, joined.cols(d, d), saved.hidden_rstd, saved.hidden);
}

void Mtp::forward(Context& ctx, const Tensor& loss, const Tensor& labels, const Tensor& loss_scale, const Head& head,
                  const BlockInput& input, const RecomputePolicy& recompute, MtpSaved& saved) const {
  const int64_t t = saved.hidden.dim(0), d = saved.hidden.dim(1);
  const DType dtype = saved.hidden.dtype();
  Arena& records = ctx.records();
  Arena& scratch = ctx.scratch();
  saved.embedded_rstd = records.empty({t}, ctx.accumulator());
  saved.hidden_rstd = records.empty({t}, ctx.accumulator());
  saved.z = records.empty({t, d}, dtype);
  saved.y = records.empty({t, d}, dtype);
  saved.dy = records.empty({t, d}, dtype);
  const NameScope scope(ctx, "mtp");
  {
    const ArenaScope freed(scratch);
    const Tensor joined = scratch.empty({t, 2 * d}, dtype);
    join(ctx, joined, saved);
    projection_.forward(ctx, saved.z, joined);
  }
  {
    const ArenaScope freed(scratch);
    block_.forward(ctx, saved.y, saved.z, input, recompute, saved.block);
  }
  const ArenaScope freed(scratch);
  const Tensor normed = scratch.empty({t, d}, dtype), dnormed = scratch.empty({t, d}, dtype);
  const Tensor rstd = scratch.empty({t}, ctx.accumulator());
  norm_.forward(ctx, normed, rstd, saved.y);
  head.loss(ctx, loss, dnormed, normed, labels, loss_scale);
  norm_.backward(ctx, saved.dy, dnormed, saved.y, rstd);
}

void Mtp::backward(Context& ctx, const Tensor& dembedded, const Tensor& dhidden, const BlockInput& input,
                   const RecomputePolicy& recompute, MtpSaved& saved) const {
  const int64_t t = saved.hidden.dim(0), d = saved.hidden.dim(1);
  const DType dtype = saved.hidden.dtype();
  const NameScope scope(ctx, "mtp");
  block_.rebuild(ctx, input, recompute, saved.block);
  saved.dz = ctx.deferred().empty({t, d}, dtype);
  block_.backward(ctx, saved.dz, saved.dy, input, saved.block);
  saved.joined = ctx.deferred().empty({t, 2 * d}, dtype);
  join(ctx, saved.joined, saved);
  const Tensor djoined = ctx.scratch().empty({t, 2 * d}, dtype);
  projection_.input_grad(ctx, djoined, saved.dz);
  embedded_norm_.backward(ctx, dembedded, djoined.cols(0, d), saved.embedded, saved.embedded_rstd);
  hidden_norm_.backward(ctx, dhidden, djoined.cols(d, d), saved.hidden, saved.hidden_rstd);
}

void Mtp::weight_grad(Context& ctx, const MtpSaved& saved) const {
  const NameScope scope(ctx, "mtp");
  projection_.weight_grad(ctx, saved.joined, saved.dz);
  block_.weight_grad(ctx, saved.block);
}

}  // namespace sluice
