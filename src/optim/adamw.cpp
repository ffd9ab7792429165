#include "optim/adamw.h"

#include <utility>

#include "base/hash.h"

namespace sluice {

AdamWOptimizer::AdamWOptimizer(Context& ctx, std::vector<FlatGroup*> groups, const AdamWOptions& options,
                               Memory& memory)
    : options_(options), groups_(std::move(groups)), arena_(memory, MemoryKind::optimizer, "moments") {
  if (ctx.dtype() == DType::f64) options_.state_dtype = DType::f64;
  const auto has_master = [&](const FlatGroup& group) {
    return group.shard().dtype() == DType::bf16 && options_.state_dtype == DType::f32;
  };
  size_t bytes = 0;
  for (const FlatGroup* group : groups_) {
    if (!group->trained()) continue;
    const auto count = static_cast<size_t>(group->shard().numel());
    bytes += 2 * Arena::footprint(count * size_of(options_.state_dtype));
    if (has_master(*group)) bytes += Arena::footprint(count * size_of(DType::f32));
  }
  arena_.reserve(bytes);
  for (const FlatGroup* group : groups_) {
    if (!group->trained()) {
      states_.emplace_back();
      continue;
    }
    const Shape shape = group->shard().shape();
    states_.push_back({.m = arena_.empty(shape, options_.state_dtype), .v = arena_.empty(shape, options_.state_dtype)});
    ctx.run(Fill{.x = states_.back().m, .value = 0});
    ctx.run(Fill{.x = states_.back().v, .value = 0});
    if (has_master(*group)) states_.back().master = arena_.empty(shape, DType::f32);
  }
}

bool AdamWOptimizer::rounds_stochastically(const FlatGroup& group) const {
  return options_.stochastic_rounding && group.shard().dtype() == DType::bf16 && options_.state_dtype != DType::f32;
}

// What is rounded at random goes parameter by parameter: names and global indices do not depend on the layout.
std::vector<AdamWOptimizer::Part> AdamWOptimizer::parts(const FlatGroup& group) const {
  std::vector<Part> parts;
  if (!rounds_stochastically(group)) {
    for (const ShardSegment& segment : group.segments()) {
      parts.push_back({.offset = segment.offset, .count = segment.count, .decay = segment.decay});
    }
    return parts;
  }
  for (const FlatGroup::Piece& piece : group.pieces()) {
    const ParamSpec& spec = piece.param->spec;
    parts.push_back({.offset = piece.offset,
                     .count = piece.value.numel(),
                     .decay = spec.decay,
                     .key = hash64("rounding of " + spec.name, options_.seed),
                     .first = piece.param->first + piece.first});
  }
  return parts;
}

void AdamWOptimizer::step(Context& ctx, const Tensor& state) {
  const NameScope scope(ctx, "optimizer");
  for (size_t i = 0; i < groups_.size(); ++i) {
    FlatGroup& group = *groups_[i];
    if (!group.trained()) continue;
    const Tensor gradient = group.gradient_shard();
    const State& mine = states_[i];
    for (const Part& part : parts(group)) {
      const auto of = [&](const Tensor& t) { return t ? t.rows(part.offset, part.count) : Tensor(); };
      ctx.run(AdamW{.w = of(group.shard()),
                    .master = of(mine.master),
                    .m = of(mine.m),
                    .v = of(mine.v),
                    .g = of(gradient),
                    .state = state,
                    .beta1 = options_.beta1,
                    .beta2 = options_.beta2,
                    .eps = options_.eps,
                    .decay = part.decay ? options_.weight_decay : 0,
                    .stochastic_rounding = rounds_stochastically(group),
                    .key = part.key,
                    .first = part.first});
    }
    group.invalidate();
  }
}

}  // namespace sluice
