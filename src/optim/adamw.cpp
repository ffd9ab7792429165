#include "optim/adamw.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"

namespace sluice {

AdamWOptimizer::AdamWOptimizer(Context& ctx, std::vector<FlatGroup*> groups, AdamWOptions options, Memory& memory)
    : options_(std::move(options)), groups_(std::move(groups)), arena_(memory, MemoryKind::optimizer, "moments") {
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
    states_.back().parts = parts(*group);
  }
}

bool AdamWOptimizer::rounds_stochastically(const FlatGroup& group) const {
  return options_.stochastic_rounding && group.shard().dtype() == DType::bf16 && options_.state_dtype != DType::f32;
}

// What is rounded at random goes parameter by parameter: names and global indices do not depend on the layout. Else
// neighbours with equal scales are one part, with the padding between them, which stays zero.
void AdamWOptimizer::add_parts(const FlatGroup::Piece& piece, std::vector<Part>& parts, bool rounded) const {
  const ParamSpec& spec = piece.param->spec;
  const int64_t begin = piece.param->first + piece.first, end = begin + piece.value.numel();
  const double decay = spec.decay || options_.decayed == DecayedParams::all ? 1 : 0;
  const auto add = [&](int64_t from, int64_t to, const ParamScale& scale) {
    if (from >= to) return;
    const Part part{.offset = piece.offset + from - begin,
                    .count = to - from,
                    .lr = scale.lr,
                    .decay = decay * scale.decay,
                    .key = rounded ? hash64("rounding of " + spec.name, options_.seed) : 0,
                    .first = rounded ? from : 0};
    if (!rounded && !parts.empty() && parts.back().lr == part.lr && parts.back().decay == part.decay) {
      parts.back().count = part.offset + part.count - parts.back().offset;
    } else {
      parts.push_back(part);
    }
  };
  int64_t at = begin;
  const auto scales = options_.scales.find(spec.name);
  for (const ParamScale& scale : scales == options_.scales.end() ? std::vector<ParamScale>{} : scales->second) {
    const int64_t from = std::clamp(scale.first, at, end), to = std::clamp(scale.first + scale.count, from, end);
    add(at, from, {});
    add(from, to, scale);
    at = to;
  }
  add(at, end, {});
}

std::vector<AdamWOptimizer::Part> AdamWOptimizer::parts(const FlatGroup& group) const {
  std::vector<Part> parts;
  for (const FlatGroup::Piece& piece : group.pieces()) add_parts(piece, parts, rounds_stochastically(group));
  return parts;
}

void AdamWOptimizer::step(Context& ctx, const Tensor& state) {
  const NameScope scope(ctx, "optimizer");
  for (size_t i = 0; i < groups_.size(); ++i) {
    FlatGroup& group = *groups_[i];
    if (!group.trained()) continue;
    const Tensor gradient = group.gradient_shard();
    const State& mine = states_[i];
    for (const Part& part : mine.parts) {
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
                    .lr_scale = part.lr,
                    .decay_scale = part.decay,
                    .coupled_decay = options_.coupled_decay,
                    .stochastic_rounding = rounds_stochastically(group),
                    .key = part.key,
                    .first = part.first});
    }
    group.invalidate();
  }
}

}  // namespace sluice
