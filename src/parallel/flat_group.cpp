#include "parallel/flat_group.h"

#include <algorithm>
#include <utility>

#include "base/hash.h"

namespace sluice {

namespace {

constexpr int64_t kParamAlignment = 64;

int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

}  // namespace

GatherBuffers::GatherBuffers(Memory& memory) : arena_(memory, MemoryKind::weights, "gathered weights") {}

void* GatherBuffers::take() {
  if (!reserved_) {
    arena_.reserve(kBuffers * Arena::footprint(bytes_));
    for (int i = 0; i < kBuffers; ++i) {
      free_.push_back(arena_.empty({static_cast<int64_t>(bytes_)}, DType::u8).raw());
    }
    reserved_ = true;
  }
  require(!free_.empty(), "more than {} units are gathered at once", +kBuffers);
  void* buffer = free_.back();
  free_.pop_back();
  return buffer;
}

void GatherBuffers::give_back(void* buffer) {
  free_.push_back(buffer);
}

FlatGroup::FlatGroup(std::string name, std::vector<Param*> params, Communicator& shard, Communicator* replicate,
                     const FlatGroupOptions& options, Memory& memory, GatherBuffers* buffers)
    : name_(std::move(name)),
      params_(std::move(params)),
      shard_group_(shard),
      replicate_(replicate != nullptr && replicate->size() > 1 ? replicate : nullptr),
      options_(options),
      buffers_(options.reshard_after_use && shard.size() > 1 ? buffers : nullptr),
      weights_(memory, MemoryKind::weights, name_ + " weights"),
      gradients_(memory, MemoryKind::gradients, name_ + " gradients") {
  const int64_t ranks = shard_group_.size();
  lay_out(ranks);
  const int64_t mine = total_ / ranks;
  const size_t element = size_of(options_.dtype);
  if (buffers_ == nullptr) {
    weights_.reserve(Arena::footprint(static_cast<size_t>(total_) * element));
    full_ = weights_.empty({total_}, options_.dtype);
    shard_ = full_.rows(shard_group_.rank() * mine, mine);
  } else {
    buffers_->require_bytes(static_cast<size_t>(total_) * element);
    weights_.reserve(Arena::footprint(static_cast<size_t>(mine) * element));
    shard_ = weights_.empty({mine}, options_.dtype);
  }
  if (!options_.gradients) return;
  const DType grad_dtype = accumulator_of(options_.dtype);
  gradients_.reserve(Arena::footprint(static_cast<size_t>(total_) * size_of(grad_dtype)));
  gradient_ = gradients_.empty({total_}, grad_dtype);
  for (size_t i = 0; i < params_.size(); ++i) {
    const Shape& shape = params_[i]->local_shape;
    params_[i]->grad = gradient_.rows(offsets_[i], shape.numel()).view(shape);
  }
}

void FlatGroup::lay_out(int64_t ranks) {
  int64_t end = 0;
  for (const Param* param : params_) {
    offsets_.push_back(end);
    end = round_up(end + param->local_shape.numel(), kParamAlignment);
  }
  total_ = round_up(std::max<int64_t>(end, 1), ranks * kParamAlignment);
}

std::vector<FlatGroup::Piece> FlatGroup::pieces() const {
  const int64_t mine = shard_.numel();
  const int64_t begin = shard_group_.rank() * mine;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < params_.size(); ++i) {
    const int64_t from = std::max(offsets_[i], begin);
    const int64_t to = std::min(offsets_[i] + params_[i]->local_shape.numel(), begin + mine);
    if (from >= to) continue;
    const int64_t offset = from - begin;
    pieces.push_back({params_[i], from - offsets_[i], offset, shard_.rows(offset, to - from)});
  }
  return pieces;
}

std::vector<FlatGroup::Piece> FlatGroup::kept_pieces() const {
  if (copy_) return {};
  std::vector<Piece> kept = pieces();
  if (replicate_ == nullptr) return kept;
  // Replicas hold the same: each keeps an equal share.
  const int64_t rank = replicate_->rank(), ranks = replicate_->size();
  for (Piece& piece : kept) {
    const int64_t from = piece.value.numel() * rank / ranks, to = piece.value.numel() * (rank + 1) / ranks;
    piece.first += from;
    piece.offset += from;
    piece.value = piece.value.rows(from, to - from);
  }
  std::erase_if(kept, [](const Piece& piece) { return piece.value.numel() == 0; });
  return kept;
}

void FlatGroup::initialize(Context& ctx, uint64_t seed, const Tensor& master) {
  const Tensor& values = master ? master : shard_;
  ctx.run(Fill{.x = values, .value = 0});
  for (const Piece& piece : pieces()) {
    const ParamSpec& spec = piece.param->spec;
    const Tensor value = values.rows(piece.offset, piece.value.numel());
    switch (spec.init) {
      case InitKind::ones:
        ctx.run(Fill{.x = value, .value = 1});
        break;
      case InitKind::zeros:
        break;
      case InitKind::normal:
        ctx.run(FillNormal{.x = value,
                           .std = spec.init_std,
                           .key = hash64(spec.name, seed),
                           .first = piece.param->first + piece.first});
        break;
    }
  }
  if (master) ctx.run(Copy{.y = shard_, .x = master});
  invalidate();
}

void FlatGroup::bind_values(const Tensor& full) {
  for (size_t i = 0; i < params_.size(); ++i) {
    const Shape& shape = params_[i]->local_shape;
    params_[i]->value = full.rows(offsets_[i], shape.numel()).view(shape);
  }
}

void FlatGroup::begin_gather(Context& ctx) {
  if (gathered_ || gathering_.pending()) return;
  if (buffers_ != nullptr) full_ = Tensor(buffers_->take(), {total_}, options_.dtype);
  if (shard_group_.size() > 1) {
    gathering_ = shard_group_.all_gather(ctx.compute(), full_, shard_, name_ + " gather");
  }
}

void FlatGroup::end_gather(Context& ctx) {
  if (gathered_) return;
  begin_gather(ctx);
  gathering_.wait(ctx.compute());
  bind_values(full_);
  gathered_ = true;
}

void FlatGroup::release() {
  if (buffers_ != nullptr) invalidate();
}

void FlatGroup::invalidate() {
  require(!gathering_.pending(), "{} is released while it is being gathered", name_);
  if (gathered_ && buffers_ != nullptr) buffers_->give_back(full_.raw());
  gathered_ = false;
}

void FlatGroup::zero_gradients(Context& ctx) {
  ctx.run(Fill{.x = gradient_, .value = 0});
}

Tensor FlatGroup::gradient_shard() const {
  const int64_t mine = shard_.numel();
  return gradient_.rows(shard_group_.rank() * mine, mine);
}

void FlatGroup::begin_reduce(Context& ctx) {
  const Tensor mine = gradient_shard();
  if (shard_group_.size() > 1) {
    reducing_ = shard_group_.reduce_scatter(ctx.compute(), mine, gradient_, name_ + " reduce");
  }
  if (replicate_ != nullptr) {
    reducing_.wait(ctx.compute());
    reducing_ = replicate_->all_reduce(ctx.compute(), mine, ReduceOp::sum, name_ + " reduce replicas");
  }
}

void FlatGroup::end_reduce(Context& ctx) {
  reducing_.wait(ctx.compute());
}

}  // namespace sluice
