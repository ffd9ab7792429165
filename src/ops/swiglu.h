// h = silu(gate) * up * weight: the gated activation of an expert or a dense layer   [Shazeer 2020]
// gate and up are the two halves of one matrix: gate_up = [gate | up]. The routing weight of a row, if any, is folded
// in here, so that no per-slot output of the down-projection need be kept.
#pragma once

#include "ops/op.h"

namespace sluice {

// The form of the gate: silu(g) u, or clamped and shifted as in GPT-OSS:
//   g' = min(g, limit), u' = clamp(u, -limit, limit);  g' sigmoid(alpha g') (u' + 1)
struct SwigluForm {
  double limit = 0;  // 0: neither clamped nor shifted
  double alpha = 1;

  bool operator==(const SwigluForm&) const = default;
};

struct SwigluForward {
  static constexpr std::string_view name = "swiglu_forward";
  static constexpr OpKind kind = OpKind::activation;
  Tensor h;        // = [M, F]
  Tensor gate_up;  //   [M, 2 F]
  Tensor weight;   //   [M], accumulator type, or undefined
  SwigluForm form = {};

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("h", h, Access::out);
    v("gate_up", gate_up, Access::in);
    v("weight", weight, Access::in);
  }
};

// dweight[m] = sum_f dh silu(gate) up (in that form).
struct SwigluBackward {
  static constexpr std::string_view name = "swiglu_backward";
  static constexpr OpKind kind = OpKind::activation;
  Tensor dgate_up;  // = [M, 2 F], may alias gate_up
  Tensor dweight;   // = [M], accumulator type, or undefined
  Tensor dh;        //   [M, F]
  Tensor gate_up;   //   [M, 2 F]
  Tensor weight;    //   [M], accumulator type, or undefined
  SwigluForm form = {};

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dgate_up", dgate_up, Access::out);
    v("dweight", dweight, Access::out);
    v("dh", dh, Access::in);
    v("gate_up", gate_up, Access::in);
    v("weight", weight, Access::in);
  }
};

}  // namespace sluice
