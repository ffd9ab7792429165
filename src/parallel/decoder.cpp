#include "parallel/decoder.h"

#include <algorithm>
#include <utility>

namespace sluice {

namespace {

const Chunk& whole_model(Stage& stage) {
  const std::vector<Chunk>& chunks = stage.chunks();
  require(chunks.size() == 1 && chunks.front().embedding && chunks.front().end, "a decoder wants the whole model");
  return chunks.front();
}

}  // namespace

Decoder::Decoder(Context& ctx, Stage& stage, int64_t capacity, Memory& memory, const ArenaSizes* sizes)
    : ctx_(ctx),
      chunk_(whole_model(stage)),
      vocab_(stage.config().vocab),
      hidden_(stage.config().hidden),
      memory_(memory),
      kept_(arena("caches", MemoryKind::activations, sizes)),
      call_(arena("call", MemoryKind::activations, sizes)),
      block_(arena("block", MemoryKind::activations, sizes)),
      scratch_(arena("scratch", MemoryKind::scratch, sizes)) {
  const StageConfig& model = stage.config();
  require(capacity > 0, "a decoder for {} tokens", capacity);
  cos_sin_ = kept_.empty({capacity, model.blocks.front().sizes().rope_dim}, ctx.accumulator());
  for (const BlockConfig& block : model.blocks) {
    const AttentionSizes each = block.sizes();
    caches_.push_back({.k = kept_.empty({capacity, each.kv_heads, each.key_dim}, ctx.dtype()),
                       .v = kept_.empty({capacity, each.kv_heads, each.value_dim}, ctx.dtype())});
  }
  ctx.bind({&block_, &block_, &block_, &scratch_});
  ctx.run(RopeTable{.cos_sin = cos_sin_, .theta = model.rope_theta, .scaling = model.rope_scaling});
}

Arena& Decoder::arena(const char* name, MemoryKind kind, const ArenaSizes* sizes) {
  arenas_.push_back(std::make_unique<Arena>(memory_, kind, name));
  if (sizes != nullptr) arenas_.back()->reserve(sizes->at(name));
  return *arenas_.back();
}

ArenaSizes Decoder::arena_sizes() const {
  ArenaSizes sizes;
  for (const auto& arena : arenas_) sizes[arena->name()] = arena->high_water();
  return sizes;
}

void Decoder::rewind(int64_t length) {
  require(length >= 0 && length <= length_, "{} of {} tokens", length, length_);
  set_length(length);
}

void Decoder::assume(int64_t length) {
  require(!ctx_.real() && length >= 0 && length <= capacity(), "{} tokens that were never there", length);
  set_length(length);
}

void Decoder::set_length(int64_t length) {
  length_ = length;
  for (KvCache& cache : caches_) cache.past = length;
}

Tensor Decoder::append(std::span<const int32_t> tokens, Logits which) {
  const auto t = std::ssize(tokens);
  require(t > 0 && length_ + t <= capacity(), "{} tokens behind {} in a decoder for {}", t, length_, capacity());
  const auto outside = std::ranges::find_if(tokens, [&](int32_t token) { return token < 0 || token >= vocab_; });
  require(outside == tokens.end(), "a token outside of the vocabulary of {}", vocab_);
  ctx_.bind({&block_, &block_, &block_, &scratch_});
  call_.release_all();
  const int64_t rows = which == Logits::all ? t : 1;
  const Tensor logits = call_.empty({rows, vocab_}, ctx_.accumulator());
  const Tensor ids = call_.empty({t}, DType::i32);
  Tensor x = call_.empty({t, hidden_}, ctx_.dtype()), y = call_.empty_like(x);
  ctx_.upload<int32_t>(ids, tokens);

  chunk_.embedding_unit.end_gather(ctx_);
  chunk_.embedding->forward(ctx_, x, ids);
  const Tensor cos_sin = cos_sin_.rows(length_, t);
  for (size_t b = 0; b < chunk_.blocks.size(); ++b) {
    chunk_.block_units[b].end_gather(ctx_);
    const ArenaScope kept_scope(block_), scratch_scope(scratch_);
    BlockSaved saved;
    chunk_.blocks[b]->forward(ctx_, y, x, {.cos_sin = cos_sin, .cache = &caches_[b]}, {}, saved);
    std::swap(x, y);
  }
  chunk_.end->logits(ctx_, logits, x.rows(t - rows, rows));
  set_length(length_ + t);
  return logits;
}

}  // namespace sluice
