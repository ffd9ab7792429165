// Rotary position embedding, half-split pairs: (x_i, x_{i + R/2}) is rotated by position * inv_freq_i   [Su et al.
// 2021]
#pragma once

#include "ops/op.h"

namespace sluice {

// YaRN's interpolation by parts: pairs from `low` on turn ever slower, those from `high` on by 1 / factor; queries and
// keys grow by `amplitude`.   [Peng et al. 2023, section 3.2]
struct YarnSpec {
  double factor = 1;  // 1: plain rotary positions
  double low = 0;     // pairs, may be fractions
  double high = 1;    // above low
  double amplitude = 1;

  bool operator==(const YarnSpec&) const = default;
};

// cos/sin tables for positions 0 .. S - 1: angle = position * theta^(-2 i / R) * ((1 - r_i) + r_i / factor) with
// r_i = clamp((i - low) / (high - low), 0, 1), cosines and sines times the amplitude.
struct RopeTable {
  static constexpr std::string_view name = "rope_table";
  static constexpr OpKind kind = OpKind::position;
  Tensor cos_sin;  // = [S, R], accumulator type: R/2 cosines, then R/2 sines
  double theta = 0;
  YarnSpec yarn = {};

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
