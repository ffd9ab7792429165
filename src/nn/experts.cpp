#include "nn/experts.h"

namespace sluice {

namespace {

std::vector<LogicalMatrix> gate_up_matrices(int64_t experts, int64_t ffn) {
  std::vector<LogicalMatrix> matrices;
  for (int64_t e = 0; e < experts; ++e) {
    matrices.push_back({std::to_string(e) + ".gate", 2 * e * ffn, ffn});
    matrices.push_back({std::to_string(e) + ".up", (2 * e + 1) * ffn, ffn});
  }
  return matrices;
}

std::vector<LogicalMatrix> down_matrices(int64_t experts, int64_t hidden) {
  std::vector<LogicalMatrix> matrices;
  for (int64_t e = 0; e < experts; ++e) matrices.push_back({std::to_string(e) + ".down", e * hidden, hidden});
  return matrices;
}

}  // namespace

Experts::Experts(const std::string& name, const MoeConfig& config, int ep_rank, int ep_size, double init_std)
    : hidden_(config.hidden),
      ffn_(config.ffn),
      form_(config.gate_form),
      gate_up_({.name = name + ".gate_up",
                .shape = {config.stored_experts(), 2 * config.ffn, config.hidden},
                .mesh = ParamMesh::expert,
                .init_std = init_std,
                .matrices = gate_up_matrices(config.stored_experts(), config.ffn)},
               ep_rank, ep_size),
      down_({.name = name + ".down",
             .shape = {config.stored_experts(), config.hidden, config.ffn},
             .mesh = ParamMesh::expert,
             .init_std = init_std,
             .matrices = down_matrices(config.stored_experts(), config.hidden)},
            ep_rank, ep_size) {
  if (!config.expert_bias) return;
  const auto bias = [&](const char* suffix, int64_t width) {
    return ParamSpec{.name = name + suffix,
                     .shape = {config.stored_experts(), width},
                     .mesh = ParamMesh::expert,
                     .init = InitKind::zeros,
                     .decay = false};
  };
  gate_up_bias_.emplace(bias(".gate_up_bias", 2 * config.ffn), ep_rank, ep_size);
  down_bias_.emplace(bias(".down_bias", config.hidden), ep_rank, ep_size);
}

void Experts::first_product(Context& ctx, const RoutingRecord& record, Arena& arena, ExpertsSaved& saved) const {
  saved.gate_up = arena.empty({saved.x.dim(0), 2 * ffn_}, saved.x.dtype());
  ctx.run(
      GroupedGemm{.y = saved.gate_up, .x = saved.x, .w = gate_up_.value, .offsets = record.offsets, .trans_w = true});
  if (gate_up_bias_) ctx.run(AddBias{.y = saved.gate_up, .b = gate_up_bias_->value, .offsets = record.offsets});
}

void Experts::activate(Context& ctx, const RoutingRecord& record, Arena& arena, ExpertsSaved& saved) const {
  saved.h = arena.empty({saved.x.dim(0), ffn_}, saved.x.dtype());
  ctx.run(SwigluForward{.h = saved.h, .gate_up = saved.gate_up, .weight = record.row_weight, .form = form_});
}

Tensor Experts::forward(Context& ctx, const Tensor& x, const RoutingRecord& record, const RecomputePolicy& recompute,
                        ExpertsSaved& saved) const {
  const NameScope scope(ctx, "experts");
  saved.x = x;
  first_product(ctx, record, recompute.experts ? ctx.scratch() : ctx.activations(), saved);
  activate(ctx, record, recompute.act || recompute.experts ? ctx.scratch() : ctx.deferred(), saved);
  Tensor y = ctx.scratch().empty_like(x);
  ctx.run(GroupedGemm{.y = y, .x = saved.h, .w = down_.value, .offsets = record.offsets, .trans_w = true});
  if (down_bias_) {
    ctx.run(AddBias{.y = y, .b = down_bias_->value, .offsets = record.offsets, .weight = record.row_weight});
  }
  return y;
}

void Experts::rebuild(Context& ctx, const RoutingRecord& record, const RecomputePolicy& recompute,
                      ExpertsSaved& saved) const {
  const NameScope scope(ctx, "experts");
  if (recompute.experts) first_product(ctx, record, ctx.scratch(), saved);
  if (recompute.act || recompute.experts) activate(ctx, record, ctx.deferred(), saved);
}

Tensor Experts::backward(Context& ctx, const Tensor& dy, const RoutingRecord& record, ExpertsSaved& saved,
                         Tensor& drow) const {
  const NameScope scope(ctx, "experts");
  Arena& scratch = ctx.scratch();
  const int64_t m = dy.dim(0);
  saved.dy = dy;
  saved.offsets = ctx.deferred().empty_like(record.offsets);
  ctx.run(Copy{.y = saved.offsets, .x = record.offsets});
  Tensor dh = scratch.empty({m, ffn_}, dy.dtype());
  ctx.run(GroupedGemm{.y = dh, .x = dy, .w = down_.value, .offsets = record.offsets});
  saved.dgate_up = ctx.deferred().empty({m, 2 * ffn_}, dy.dtype());
  drow = scratch.empty({m}, record.row_weight.dtype());
  ctx.run(SwigluBackward{.dgate_up = saved.dgate_up,
                         .dweight = drow,
                         .dh = dh,
                         .gate_up = saved.gate_up,
                         .weight = record.row_weight,
                         .form = form_});
  // Here and not with the weight gradients: the rows' weights are gone by then.
  if (down_bias_) {
    ctx.run(BiasBackward{.db = down_bias_->grad,
                         .dweight = drow,
                         .dy = dy,
                         .b = down_bias_->value,
                         .offsets = record.offsets,
                         .weight = record.row_weight});
  }
  Tensor dx = scratch.empty({m, hidden_}, dy.dtype());
  ctx.run(GroupedGemm{.y = dx, .x = saved.dgate_up, .w = gate_up_.value, .offsets = record.offsets});
  return dx;
}

void Experts::weight_grad(Context& ctx, const ExpertsSaved& saved) const {
  const NameScope scope(ctx, "experts");
  ctx.run(GroupedGemmWeight{.dw = down_.grad, .dy = saved.dy, .x = saved.h, .offsets = saved.offsets});
  ctx.run(GroupedGemmWeight{.dw = gate_up_.grad, .dy = saved.dgate_up, .x = saved.x, .offsets = saved.offsets});
  if (gate_up_bias_) {
    ctx.run(BiasBackward{.db = gate_up_bias_->grad, .dy = saved.dgate_up, .offsets = saved.offsets});
  }
}

}  // namespace sluice
