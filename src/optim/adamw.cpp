#include "optim/adamw.h"

#include <utility>

namespace sluice {

AdamWOptimizer::AdamWOptimizer(Context& ctx, std::vector<FlatGroup*> groups, const AdamWOptions& options,
                               Memory& memory)
    : options_(options), groups_(std::move(groups)), arena_(memory, MemoryKind::optimizer, "moments") {
  if (ctx.dtype() == DType::f64) options_.state_dtype = DType::f64;
  size_t bytes = 0;
  for (const FlatGroup* group : groups_) {
    bytes += 2 * Arena::footprint(static_cast<size_t>(group->shard().numel()) * size_of(options_.state_dtype));
  }
  arena_.reserve(bytes);
  for (const FlatGroup* group : groups_) {
    const Shape shape = group->shard().shape();
    moments_.push_back({arena_.empty(shape, options_.state_dtype), arena_.empty(shape, options_.state_dtype)});
    ctx.run(Fill{.x = moments_.back().m, .value = 0});
    ctx.run(Fill{.x = moments_.back().v, .value = 0});
  }
}

void AdamWOptimizer::step(Context& ctx, const Tensor& state) {
  const NameScope scope(ctx, "optimizer");
  for (size_t i = 0; i < groups_.size(); ++i) {
    FlatGroup& group = *groups_[i];
    const Tensor gradient = group.gradient_shard();
    for (const ShardSegment& segment : group.segments()) {
      ctx.run(AdamW{.w = group.shard().rows(segment.offset, segment.count),
                    .m = moments_[i].m.rows(segment.offset, segment.count),
                    .v = moments_[i].v.rows(segment.offset, segment.count),
                    .g = gradient.rows(segment.offset, segment.count),
                    .state = state,
                    .beta1 = options_.beta1,
                    .beta2 = options_.beta2,
                    .eps = options_.eps,
                    .decay = segment.decay ? options_.weight_decay : 0});
    }
    group.invalidate();
  }
}

}  // namespace sluice
