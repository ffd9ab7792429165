// What training changes, as a checkpoint keeps it: this rank's part of every parameter and of its moments.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/state_slice.h"
#include "device/context.h"
#include "optim/adamw.h"
#include "parallel/flat_group.h"

namespace sluice {

// A rank's groups, and their optimizer; null: there are values alone.
struct TrainedState {
  std::vector<FlatGroup*> groups;
  const AdamWOptimizer* optimizer = nullptr;
};

// The elements of a dense tensor of this rank's device, to host memory.
void copy_to_host(const Context& ctx, const Tensor& from, std::byte* to);

// What this rank adds to a checkpoint; over all ranks each element is there once.
std::vector<StateSlice> kept_slices(const TrainedState& state);

// Fills all that the rank holds (=) from a checkpoint of any layout; gathered copies are stale afterwards. With
// `host_visible` in place, else by way of host memory of a bounded size. User error where the checkpoint has a
// parameter of another shape, or lacks one.
void load_state(Context& ctx, const Checkpoint& checkpoint, const TrainedState& state, bool host_visible, Pool* pool,
                const std::function<void(uint64_t done, uint64_t all)>& progress = {});
// The same of the values alone, masters too; moments stay as they are.
void load_values(Context& ctx, const Checkpoint& checkpoint, const TrainedState& state, bool host_visible, Pool* pool,
                 const std::function<void(uint64_t done, uint64_t all)>& progress = {});

}  // namespace sluice
