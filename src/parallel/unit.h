// Parameter groups that are gathered and released together: those of a block, of the embedding, of the head.
#pragma once

#include <memory>
#include <vector>

#include "parallel/flat_group.h"

namespace sluice {

struct Unit {
  std::vector<std::unique_ptr<FlatGroup>> groups;

  void begin_gather(Context& ctx) const {
    for (const auto& group : groups) group->begin_gather(ctx);
  }
  void end_gather(Context& ctx) const {
    for (const auto& group : groups) group->end_gather(ctx);
  }
  void release() const {
    for (const auto& group : groups) group->release();
  }
  void begin_reduce(Context& ctx) const {
    for (const auto& group : groups) group->begin_reduce(ctx);
  }
};

}  // namespace sluice
