#include "parallel/runtime.h"

#include <algorithm>
#include <deque>
#include <utility>

namespace sluice {

// Arenas of one role of a chunk, used in turn. What was sent from an arena is waited for before it is used again.
struct Runtime::ArenaPool {
  struct Slot {
    Arena* arena = nullptr;
    std::vector<Work> sends;
  };
  std::deque<Slot> free;

  Slot take(Context& ctx) {
    require(!free.empty(), "more micro-batches are in flight than the schedule said");
    Slot slot = std::move(free.front());
    free.pop_front();
    for (Work& send : slot.sends) send.wait(ctx.compute());
    slot.sends.clear();
    slot.arena->release_all();
    return slot;
  }
  void give_back(Slot slot) { free.push_back(std::move(slot)); }
  void wait_for_sends(Context& ctx) {
    for (Slot& slot : free) {
      for (Work& send : slot.sends) send.wait(ctx.compute());
      slot.sends.clear();
    }
  }
};

struct Runtime::Flight {
  int chunk = 0;
  int micro_batch = 0;
  ArenaPool::Slot activations;
  ArenaPool::Slot deferred;  // empty unless the schedule defers W
  Tensor tokens;
  Tensor sample_ids;
  Tensor grad_scale;
  LoadForecast forecast;
  std::vector<BlockSaved> blocks;
  ModelEndSaved end;
  Tensor dy;  // gradient of the chunk's output, where the end of the model is
};

namespace {

// "F micro-batch 3", or with several chunks "F micro-batch 3 chunk 1".
std::string range_name(const Action& action, int chunks) {
  std::string name = std::string(letters_of(action.kind)) + " micro-batch " + std::to_string(action.micro_batch);
  if (chunks > 1) name += " chunk " + std::to_string(action.chunk);
  return name;
}

}  // namespace

Runtime::Runtime(Context& ctx, Mesh& mesh, Stage& stage, Schedule schedule, const RuntimeConfig& config, Memory& memory,
                 const ArenaSizes* sizes)
    : ctx_(ctx),
      mesh_(mesh),
      stage_(stage),
      schedule_(std::move(schedule)),
      config_(config),
      memory_(memory),
      sizes_(sizes),
      constants_(&arena("constants", MemoryKind::weights)),
      scratch_(&arena("scratch", MemoryKind::scratch)) {
  const StageConfig& model = stage.config();
  const int rank = mesh.at.pp;
  for (const Action& action : schedule_.ranks[static_cast<size_t>(rank)]) {
    defers_ = defers_ || action.kind == ActionKind::weight;
  }
  for (int c = 0; c < schedule_.chunks; ++c) {
    const auto fill = [&](ArenaPool& pool, const char* role, int count) {
      for (int i = 0; i < count; ++i) {
        const std::string name = "chunk " + std::to_string(c) + " " + role + " " + std::to_string(i);
        pool.free.push_back({&arena(name, MemoryKind::activations), {}});
      }
    };
    activations_.push_back(std::make_unique<ArenaPool>());
    deferred_.push_back(std::make_unique<ArenaPool>());
    fill(*activations_.back(), "activations", schedule_.max_in_flight(rank, c));
    if (defers_) fill(*deferred_.back(), "deferred", schedule_.max_held(rank, c));
  }
  cos_sin_ = constants_->empty({model.seq_len, model.blocks.front().sizes().rope_dim}, ctx.accumulator());
  bind_scratch();
  ctx.run(RopeTable{.cos_sin = cos_sin_, .theta = model.rope_theta, .scaling = model.rope_scaling});
}

Runtime::~Runtime() = default;

Arena& Runtime::arena(const std::string& name, MemoryKind kind) {
  auto created = std::make_unique<Arena>(memory_, kind, name);
  if (sizes_ != nullptr) {
    const auto size = sizes_->find(name);
    if (size != sizes_->end()) created->reserve(size->second);
  }
  return *arenas_.emplace(name, std::move(created)).first->second;
}

ArenaSizes Runtime::arena_sizes() const {
  ArenaSizes sizes;
  for (const auto& [name, arena] : arenas_) sizes[name] = arena->high_water();
  return sizes;
}

size_t Runtime::in_use() const {
  size_t bytes = 0;
  for (const auto& [name, arena] : arenas_) bytes += arena->in_use();
  return bytes;
}

bool Runtime::holds(const void* address) const {
  return std::any_of(arenas_.begin(), arenas_.end(), [&](const auto& entry) { return entry.second->holds(address); });
}

std::vector<ArenaGrowth> Runtime::grown() const {
  std::vector<ArenaGrowth> list;
  for (const auto& [name, arena] : arenas_) {
    if (arena->grown() > 0) list.push_back({name, arena->grown(), arena->grown_bytes()});
  }
  return list;
}

void Runtime::bind_scratch() {
  ctx_.bind({scratch_, scratch_, scratch_, scratch_});
}

void Runtime::bind_forward(const Flight& flight) {
  Arena* records = flight.activations.arena;
  if (config_.recompute.full) {
    ctx_.bind({scratch_, scratch_, records, scratch_});
  } else {
    ctx_.bind({records, defers_ ? flight.deferred.arena : records, records, scratch_});
  }
}

void Runtime::bind_backward(const Flight& flight, bool full) {
  ctx_.bind({scratch_, full ? scratch_ : flight.deferred.arena, flight.activations.arena, scratch_});
}

BlockInput Runtime::block_input(const Flight& flight) const {
  return {.cos_sin = cos_sin_,
          .sample_ids = flight.sample_ids,
          .forecast = flight.forecast,
          .grad_scale = flight.grad_scale};
}

BlockInput Runtime::block_input(const Flight& flight, const Tensor& load, int64_t layer) const {
  BlockInput input = block_input(flight);
  if (load) input.load = load.rows(layer, 1).view({load.dim(1)});
  return input;
}

Runtime::Flight& Runtime::take_off(int chunk, int micro_batch) {
  auto flight = std::make_unique<Flight>();
  flight->chunk = chunk;
  flight->micro_batch = micro_batch;
  flight->activations = activations_[static_cast<size_t>(chunk)]->take(ctx_);
  if (defers_) flight->deferred = deferred_[static_cast<size_t>(chunk)]->take(ctx_);
  flight->blocks.resize(stage_.chunks()[static_cast<size_t>(chunk)].blocks.size());
  return *(flights_[{chunk, micro_batch}] = std::move(flight));
}

void Runtime::land(Flight& flight) {
  if (defers_) deferred_[static_cast<size_t>(flight.chunk)]->give_back(std::move(flight.deferred));
  flights_.erase({flight.chunk, flight.micro_batch});
}

namespace {

// No boundary has it.
constexpr int kEmbeddingTag = 0;

// One tag per (micro-batch, boundary between model stages, direction).
int tag_of(int micro_batch, int boundary, bool backward) {
  return (micro_batch << 12 | boundary) << 1 | int{backward};
}

}  // namespace

void Runtime::forward(int chunk_idx, int micro_batch, MicroBatchSource& source, const StepTensors& step,
                      bool with_gradients) {
  Chunk& chunk = stage_.chunks()[static_cast<size_t>(chunk_idx)];
  Flight& flight = take_off(chunk_idx, micro_batch);
  bind_forward(flight);
  const int64_t batch = config_.micro_batch_size;
  const int64_t t = batch * stage_.config().seq_len;
  Arena& records = *flight.activations.arena;
  const Shape shape = {t, stage_.config().hidden};

  flight.grad_scale = step.state.rows(kGradScale, 1);
  flight.sample_ids = records.empty({batch}, DType::i64);
  if (chunk.embedding) flight.tokens = records.empty({t}, DType::i32);
  if (chunk.end) flight.end.labels = records.empty({t}, DType::i32);
  if (chunk.end && chunk.end->predicts_further() && with_gradients) {
    flight.end.next_tokens = records.empty({t}, DType::i32);
    flight.end.next_labels = records.empty({t}, DType::i32);
  }
  flight.forecast = source.load(ctx_, micro_batch,
                                {.tokens = flight.tokens,
                                 .labels = flight.end.labels,
                                 .next_tokens = flight.end.next_tokens,
                                 .next_labels = flight.end.next_labels,
                                 .sample_ids = flight.sample_ids});

  Tensor x = records.empty(shape, ctx_.dtype());
  const std::string what = "micro-batch " + std::to_string(micro_batch);
  if (chunk.embedding) {
    chunk.embedding_unit.end_gather(ctx_);
    if (!chunk.block_units.empty()) chunk.block_units.front().begin_gather(ctx_);
    const RangeScope range(ctx_.ranges(), "embedding");
    chunk.embedding->forward(ctx_, x, flight.tokens);
    chunk.embedding_unit.release();
  } else {
    mesh_.pp
        ->recv(ctx_.compute(), x, peer_of_stage(chunk.model_stage - 1), tag_of(micro_batch, chunk.model_stage, false),
               what + " activations")
        .wait(ctx_.compute());
  }
  const Tensor load = with_gradients ? step.load : Tensor();
  for (size_t b = 0; b < chunk.blocks.size(); ++b) {
    chunk.block_units[b].end_gather(ctx_);
    if (b + 1 < chunk.blocks.size()) chunk.block_units[b + 1].begin_gather(ctx_);
    Tensor y = records.empty(shape, ctx_.dtype());
    const ArenaScope scope(*scratch_);
    const BlockInput input = block_input(flight, load, chunk.first_layer + static_cast<int64_t>(b));
    chunk.blocks[b]->forward(ctx_, y, x, input, config_.recompute, flight.blocks[b]);
    chunk.block_units[b].release();
    x = y;
  }
  if (chunk.end) {
    const RangeScope range(ctx_.ranges(), "head");
    if (with_gradients) flight.dy = records.empty(shape, ctx_.dtype());
    const bool further = chunk.end->predicts_further();
    chunk.end->forward(ctx_, flight.dy, x,
                       {.grad_scale = flight.grad_scale,
                        .mtp_grad_scale = step.state.rows(kMtpGradScale, 1),
                        .loss = step.loss.rows(0, 1),
                        .mtp_loss = step.loss.rows(1, 1)},
                       block_input(flight, further ? load : Tensor(), std::ssize(stage_.config().blocks)),
                       config_.recompute, flight.end);
  } else {
    flight.activations.sends.push_back(mesh_.pp->send(ctx_.compute(), x, peer_of_stage(chunk.model_stage + 1),
                                                      tag_of(micro_batch, chunk.model_stage + 1, false),
                                                      what + " activations"));
  }
}

void Runtime::backward(int chunk_idx, int micro_batch, bool full) {
  Chunk& chunk = stage_.chunks()[static_cast<size_t>(chunk_idx)];
  Flight& flight = *flights_.at({chunk_idx, micro_batch});
  bind_backward(flight, full);
  Arena& records = *flight.activations.arena;
  const Shape shape = {config_.micro_batch_size * stage_.config().seq_len, stage_.config().hidden};
  const std::string what = "micro-batch " + std::to_string(micro_batch) + " gradients";

  Tensor dy = flight.dy;
  if (chunk.end) {
    const RangeScope range(ctx_.ranges(), "head");
    chunk.end->backward(ctx_, dy, block_input(flight), config_.recompute, full, flight.end);
  } else {
    dy = records.empty(shape, ctx_.dtype());
    mesh_.pp
        ->recv(ctx_.compute(), dy, peer_of_stage(chunk.model_stage + 1),
               tag_of(micro_batch, chunk.model_stage + 1, true), what)
        .wait(ctx_.compute());
  }
  // Two buffers take turns: a block's output gradient is dead once its input gradient is written.
  Tensor dx = chunk.blocks.empty() ? Tensor() : records.empty(shape, ctx_.dtype());
  for (size_t b = chunk.blocks.size(); b-- > 0;) {
    chunk.block_units[b].end_gather(ctx_);
    if (b > 0) chunk.block_units[b - 1].begin_gather(ctx_);
    const Block& block = *chunk.blocks[b];
    BlockSaved& saved = flight.blocks[b];
    const ArenaScope scope(*scratch_);
    block.rebuild(ctx_, block_input(flight), config_.recompute, saved);
    block.backward(ctx_, dx, dy, block_input(flight), saved);
    if (full) block.weight_grad(ctx_, saved);
    chunk.block_units[b].release();
    std::swap(dx, dy);
  }
  if (chunk.embedding) {
    const RangeScope range(ctx_.ranges(), "embedding");
    chunk.embedding->backward(ctx_, dy, flight.tokens);
  } else {
    flight.activations.sends.push_back(mesh_.pp->send(ctx_.compute(), dy, peer_of_stage(chunk.model_stage - 1),
                                                      tag_of(micro_batch, chunk.model_stage, true), what));
  }
  activations_[static_cast<size_t>(chunk_idx)]->give_back(std::move(flight.activations));
  if (full) {
    land(flight);
    start_reduce_if_last(chunk_idx);
  }
}

void Runtime::weight(int chunk_idx, int micro_batch) {
  Flight& flight = *flights_.at({chunk_idx, micro_batch});
  ctx_.bind({scratch_, flight.deferred.arena, scratch_, scratch_});
  const Chunk& chunk = stage_.chunks()[static_cast<size_t>(chunk_idx)];
  if (chunk.end) chunk.end->weight_grad(ctx_, flight.end);
  for (size_t b = chunk.blocks.size(); b-- > 0;) chunk.blocks[b]->weight_grad(ctx_, flight.blocks[b]);
  land(flight);
  start_reduce_if_last(chunk_idx);
}

void Runtime::start_reduce_if_last(int chunk_idx) {
  if (--contributions_left_[static_cast<size_t>(chunk_idx)] > 0) return;
  const Chunk& chunk = stage_.chunks()[static_cast<size_t>(chunk_idx)];
  if (chunk.end) chunk.end->begin_reduce(ctx_);
  for (size_t b = chunk.block_units.size(); b-- > 0;) chunk.block_units[b].begin_reduce(ctx_);
  chunk.embedding_unit.begin_reduce(ctx_);
}

void Runtime::run(MicroBatchSource& source, const StepTensors& step) {
  contributions_left_.assign(static_cast<size_t>(schedule_.chunks), schedule_.micro_batches);
  for (const Action& action : schedule_.ranks[static_cast<size_t>(mesh_.at.pp)]) {
    running_ = &action;
    const RangeScope range(ctx_.ranges(), [&] { return range_name(action, schedule_.chunks); });
    switch (action.kind) {
      case ActionKind::forward:
        forward(action.chunk, action.micro_batch, source, step, true);
        break;
      case ActionKind::backward:
        backward(action.chunk, action.micro_batch, false);
        break;
      case ActionKind::backward_full:
        backward(action.chunk, action.micro_batch, true);
        break;
      case ActionKind::weight:
        weight(action.chunk, action.micro_batch);
        break;
    }
  }
  running_ = nullptr;
  for (auto& pool : activations_) pool->wait_for_sends(ctx_);
  const RangeScope range(ctx_.ranges(), "gradients of all ranks");
  for (FlatGroup* group : stage_.groups()) group->end_reduce(ctx_);
  bind_scratch();
  add_up_shared_embedding();
}

// The embedding and its copy at the other end of the pipeline get the sum of both gradients: a + b is b + a.
void Runtime::add_up_shared_embedding() {
  const Stage::SharedEmbedding shared = stage_.shared_embedding();
  if (shared.group == nullptr) return;
  const ArenaScope scope(*scratch_);
  const Tensor mine = shared.group->gradient_shard();
  const Tensor other = scratch_->empty_like(mine);
  Work send = mesh_.pp->send(ctx_.compute(), mine, shared.peer, kEmbeddingTag, "embedding gradients");
  mesh_.pp->recv(ctx_.compute(), other, shared.peer, kEmbeddingTag, "embedding gradients").wait(ctx_.compute());
  send.wait(ctx_.compute());
  ctx_.run(Add{.y = mine, .x = other});
}

void Runtime::evaluate(MicroBatchSource& source, const StepTensors& step, int micro_batches) {
  for (int m = 0; m < micro_batches; ++m) {
    for (int c = 0; c < schedule_.chunks; ++c) {
      const RangeScope range(ctx_.ranges(), [&] { return range_name({ActionKind::forward, c, m}, schedule_.chunks); });
      forward(c, m, source, step, false);
      Flight& flight = *flights_.at({c, m});
      activations_[static_cast<size_t>(c)]->give_back(std::move(flight.activations));
      land(flight);
    }
  }
  for (auto& pool : activations_) pool->wait_for_sends(ctx_);
  bind_scratch();
}

}  // namespace sluice
