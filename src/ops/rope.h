// Rotary position embedding, half-split pairs: (x_i, x_{i + R/2}) is rotated by position * inv_freq_i   [Su et al.
// 2021]
#pragma once

#include "ops/op.h"

namespace sluice {

// How rotary positions reach further than a model was first trained for: some pairs turn more slowly. Along a ramp x a
// pair turns as before up to `start` and by 1 / factor from `end` on; between, in proportion.
//   YaRN, interpolation by parts: x is the pair's number   [Peng et al. 2023, section 3.2]
//   Llama 3: x is the turns that a pair makes within `original` positions, fewer at the end than at the start
//   [Hugging Face's _compute_llama3_parameters]
//   linear: all pairs alike, the ramp ends before the first   [Chen et al. 2023]
struct RopeScaling {
  double factor = 1;     // 1: plain rotary positions
  double start = 0;      // pairs or turns, may be fractions
  double end = 1;        // not start
  double amplitude = 1;  // by which queries and keys grow
  double original = 0;   // 0: the ramp is over pairs

  bool operator==(const RopeScaling&) const = default;
};

// cos/sin tables for positions 0 .. S - 1: angle = position * f_i * ((1 - r_i) + r_i / factor), f_i = theta^(-2 i / R),
// r_i = clamp((x_i - start) / (end - start), 0, 1), x_i = i or original f_i / (2 pi); cosines and sines times the
// amplitude.
struct RopeTable {
  static constexpr std::string_view name = "rope_table";
  static constexpr OpKind kind = OpKind::position;
  Tensor cos_sin;  // = [S, R], accumulator type: R/2 cosines, then R/2 sines
  double theta = 0;
  RopeScaling scaling = {};

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("cos_sin", cos_sin, Access::out);
  }
};

// Rotates x in place; `inverse` rotates back, which is the gradient. Row t stands at position t mod S.
struct Rope {
  static constexpr std::string_view name = "rope";
  static constexpr OpKind kind = OpKind::position;
  Tensor x;        // in place, [T, n, R], may be strided
  Tensor cos_sin;  //   [S, R], accumulator type
  bool inverse = false;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("x", x, Access::update);
    v("cos_sin", cos_sin, Access::in);
  }
};

}  // namespace sluice
