// Weights of a hub directory into a model's parameters, and back.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "checkpoint/hub_match.h"
#include "device/context.h"
#include "device/pool.h"
#include "parallel/flat_group.h"

namespace sluice {

// This rank's shard of a group; `master` is as large as it, or undefined.
struct GroupShard {
  FlatGroup* group = nullptr;
  Tensor master = {};
};

struct ImportOptions {
  Pool* pool = nullptr;                                          // null: the caller's thread alone
  bool host_visible = true;                                      // shards may be written by the host in place
  std::function<void(int64_t done, int64_t all)> progress = {};  // elements; on the caller's thread
};

struct ImportCount {
  int64_t tensors = 0;   // of the hub, all or a part of which this rank holds
  int64_t elements = 0;  // written on this rank
};

// Writes this rank's shards (=), masters too, and makes gathered copies stale. Only stored bytes that the rank holds
// are touched; beside the shards memory stays below a fixed bound. User error that names tensor and file where a value
// is NaN; a warning where one is infinite, as stored or in the shard's dtype.
ImportCount import_weights(const Context& ctx, const HubMatch& match, std::span<const GroupShard> shards,
                           const ImportOptions& options);

}  // namespace sluice
