// Rotary position embedding, half-split pairs: (x_i, x_{i + R/2}) is rotated by position * inv_freq_i   [Su et al.
// 2021]
#pragma once

#include "ops/op.h"

namespace sluice {

// cos/sin tables for positions 0 .. S - 1: angle = position * theta^(-2 i / R).
struct RopeTable {
  static constexpr std::string_view name = "rope_table";
  Tensor cos_sin;  // = [S, R], accumulator type: R/2 cosines, then R/2 sines
  double theta = 0;

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
