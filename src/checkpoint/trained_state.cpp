#include "checkpoint/trained_state.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace sluice {
namespace {

// A group's arrays, each as long as its shard; undefined where there is none.
Tensor array_of(const TrainedState& state, size_t group, StateKind kind) {
  const AdamWOptimizer* optimizer = state.optimizer;
  switch (kind) {
    case StateKind::value: {
      const Tensor master = optimizer != nullptr ? optimizer->master(group) : Tensor();
      return master ? master : state.groups[group]->shard();
    }
    case StateKind::moment1:
      return optimizer != nullptr ? optimizer->moment1(group) : Tensor();
    case StateKind::moment2:
      return optimizer != nullptr ? optimizer->moment2(group) : Tensor();
  }
  return {};
}

std::vector<StateSlice> slices_of(const TrainedState& state, bool kept) {
  std::vector<StateSlice> slices;
  for (size_t i = 0; i < state.groups.size(); ++i) {
    const FlatGroup& group = *state.groups[i];
    for (const FlatGroup::Piece& piece : kept ? group.kept_pieces() : group.pieces()) {
      for (const StateKind kind : kStateKinds) {
        const Tensor array = array_of(state, i, kind);
        if (!array) continue;
        slices.push_back({.kind = kind,
                          .param = &piece.param->spec,
                          .first = piece.param->first + piece.first,
                          .values = array.rows(piece.offset, piece.value.numel())});
      }
    }
  }
  return slices;
}

// By way of the host, so many bytes at a time.
void fill_device(const Context& ctx, const Checkpoint& checkpoint, const StateSlice& slice, Pool* pool) {
  constexpr int64_t kElements = 1 << 24;
  dispatch_float(slice.values.dtype(), [&](auto type) {
    using T = decltype(type);
    std::vector<T> values;
    for (int64_t at = 0; at < slice.values.numel(); at += kElements) {
      const int64_t count = std::min(kElements, slice.values.numel() - at);
      values.resize(static_cast<size_t>(count));
      checkpoint.read(std::array{Checkpoint::Wanted{slice.kind, slice.param->name, slice.first + at,
                                                    tensor_of(values.data(), {count})}},
                      pool);
      ctx.upload<T>(slice.values.rows(at, count), values);
    }
  });
}

void load_slices(Context& ctx, const Checkpoint& checkpoint, const TrainedState& state,
                 const std::vector<StateSlice>& slices, bool host_visible, Pool* pool,
                 const std::function<void(uint64_t done, uint64_t all)>& progress) {
  for (const StateSlice& slice : slices) checkpoint.require_parameter(slice.param->name, slice.param->shape);
  if (host_visible) {
    std::vector<Checkpoint::Wanted> wanted;
    for (const StateSlice& slice : slices) wanted.push_back({slice.kind, slice.param->name, slice.first, slice.values});
    checkpoint.read(wanted, pool, progress);
  } else {
    uint64_t done = 0, all = 0;
    for (const StateSlice& slice : slices) all += slice.values.bytes();
    for (const StateSlice& slice : slices) {
      fill_device(ctx, checkpoint, slice, pool);
      done += slice.values.bytes();
      if (progress) progress(done, all);
    }
  }
  for (size_t i = 0; i < state.groups.size(); ++i) {
    const Tensor master = state.optimizer != nullptr ? state.optimizer->master(i) : Tensor();
    if (master) ctx.run(Copy{.y = state.groups[i]->shard(), .x = master});
    state.groups[i]->invalidate();
  }
}

}  // namespace

void copy_to_host(const Context& ctx, const Tensor& from, std::byte* to) {
  dispatch_float(from.dtype(), [&]<class T>(T) {
    const std::vector<T> values = ctx.read<T>(from, [&] { return std::vector<T>(static_cast<size_t>(from.numel())); });
    std::memcpy(to, values.data(), from.bytes());
  });
}

std::vector<StateSlice> kept_slices(const TrainedState& state) {
  return slices_of(state, true);
}

void load_state(Context& ctx, const Checkpoint& checkpoint, const TrainedState& state, bool host_visible, Pool* pool,
                const std::function<void(uint64_t done, uint64_t all)>& progress) {
  load_slices(ctx, checkpoint, state, slices_of(state, false), host_visible, pool, progress);
}

void load_values(Context& ctx, const Checkpoint& checkpoint, const TrainedState& state, bool host_visible, Pool* pool,
                 const std::function<void(uint64_t done, uint64_t all)>& progress) {
  std::vector<StateSlice> slices = slices_of(state, false);
  std::erase_if(slices, [](const StateSlice& slice) { return slice.kind != StateKind::value; });
  load_slices(ctx, checkpoint, state, slices, host_visible, pool, progress);
}

}  // namespace sluice
