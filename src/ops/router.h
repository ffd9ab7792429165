// Which experts a token goes to, and with what weight. Router arithmetic is in the accumulator type.
#pragma once

#include "ops/op.h"

namespace sluice {

// p = softmax(logits); the experts of the K largest logits in descending order (ties: lower expert first), and their p
// renormalised to sum 1.
struct SoftmaxTopKForward {
  static constexpr std::string_view name = "softmax_topk_forward";
  Tensor experts;  // = i32 [T, K]
  Tensor weights;  // = [T, K], accumulator type
  Tensor probs;    // = [T, E], accumulator type, kept for backward
  Tensor logits;   //   [T, E], accumulator type

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("experts", experts, Access::out);
    v("weights", weights, Access::out);
    v("probs", probs, Access::out);
    v("logits", logits, Access::in);
  }
};

struct SoftmaxTopKBackward {
  static constexpr std::string_view name = "softmax_topk_backward";
  Tensor dlogits;   // = [T, E], accumulator type
  Tensor dweights;  //   [T, K], accumulator type
  Tensor experts;   //   i32 [T, K]
  Tensor weights;   //   [T, K]
  Tensor probs;     //   [T, E]

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dlogits", dlogits, Access::out);
    v("dweights", dweights, Access::in);
    v("experts", experts, Access::in);
    v("weights", weights, Access::in);
    v("probs", probs, Access::in);
  }
};

// How a gate without parameters spreads tokens; a pure function of (seed, global token id, slot), so that any rank, and
// a plan without data, can evaluate it for any token.
enum class GateKind : uint8_t {
  published,  // expert = (token K + slot) mod E, weight 1 / K: neighbours, exactly balanced
  spread,     // K random distinct experts a token, exactly balanced over every E consecutive tokens
  skewed,     // one random expert gets `skew` times the mean load, exact over any range; the others share the rest
};

struct GateSpec {
  GateKind kind = GateKind::published;
  int64_t num_experts = 0;  // E
  int64_t top_k = 0;        // K
  double skew = 1;          // max / mean load of `skewed`
  // The published gate's noise z in [0, 1]: weights (1 - z) / K + z * normalised uniform, experts = top-K of
  // uniform(E) + normal(E) * 0.1 z. 0 is the exact gate.
  double noise = 0;
  uint64_t seed = 0;
  int64_t idle = 0;  // experts that `skewed` gives no token at all

  // Throws a user error unless the numbers are possible: K <= E, noise in [0, 1], skew in [E / (E - idle), E / K], ...
  void check() const;
};

// The K experts of one token, into `experts[0 .. K)`; all different.
void gate_experts(const GateSpec& gate, int64_t token, int32_t* experts);
// The K weights of one token; they sum to 1.
void gate_weights(const GateSpec& gate, int64_t token, double* weights);

struct ForcedGate {
  static constexpr std::string_view name = "forced_gate";
  Tensor experts;     // = i32 [T, K]
  Tensor weights;     // = [T, K], accumulator type
  Tensor sample_ids;  //   i64 [T / S], global ids; token = id * S + position
  int64_t seq_len = 0;
  GateSpec gate;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("experts", experts, Access::out);
    v("weights", weights, Access::out);
    v("sample_ids", sample_ids, Access::in);
  }
};

}  // namespace sluice
