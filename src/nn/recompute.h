// What is not kept from a block's forward to its backward but made again.
#pragma once

#include <cstdint>

namespace sluice {

struct RecomputePolicy {
  bool norm = false;      // the normed inputs of attention and experts
  bool mla_up = false;    // queries, keys and values of latent attention
  bool qk_rope = false;   // q and k of grouped-query attention after norm and rotation
  bool act = false;       // the experts' activation
  bool experts = false;   // the experts' first product (and the activation)
  bool dispatch = false;  // the experts' input
  bool full = false;      // everything, from the block's input and the routing record

  static RecomputePolicy selective() { return {.norm = true, .mla_up = true, .qk_rope = true, .act = true}; }
  bool operator==(const RecomputePolicy&) const = default;
  bool any() const { return norm || mla_up || qk_rope || act || experts || dispatch || full; }
};

enum class RecomputePart : uint8_t { norm, mla_up, qk_rope, act, experts, dispatch };

// The pieces by name, the cheapest to make again first.
struct RecomputePiece {
  RecomputePart part;
  const char* name;
  bool RecomputePolicy::* on;
};
inline constexpr RecomputePiece kRecomputePieces[] = {
    {RecomputePart::norm, "norm", &RecomputePolicy::norm},
    {RecomputePart::mla_up, "mla_up", &RecomputePolicy::mla_up},
    {RecomputePart::qk_rope, "qk_rope", &RecomputePolicy::qk_rope},
    {RecomputePart::act, "act", &RecomputePolicy::act},
    {RecomputePart::experts, "experts", &RecomputePolicy::experts},
    {RecomputePart::dispatch, "dispatch", &RecomputePolicy::dispatch}};

}  // namespace sluice
