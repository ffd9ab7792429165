// Multi-head latent attention between its up-projections and the attention itself: every head's key is a part of its
// own (k_nope) beside a rotary part that all heads share (k_pe); its query has the same two parts. Rotary pairs are
// neighbours, (x_{2 i}, x_{2 i + 1}).   [DeepSeek-V2 2024, section 2.1]
// Legend: n heads, dn and dr columns without and with rotation, dv columns of a value.
#pragma once

#include "ops/op.h"

namespace sluice {

// q[.., dn:] is rotated in place;  k = [k_nope | rotated k_pe],  v = the value part of kv. Row t stands at t mod S.
struct MlaHeads {
  static constexpr std::string_view name = "mla_heads";
  static constexpr OpKind kind = OpKind::position;
  Tensor q;        // in place, [T, n, dn + dr]
  Tensor k;        // = [T, n, dn + dr]
  Tensor v;        // = [T, n, dv]
  Tensor kv;       //   [T, n, dn + dv]: k_nope and value of each head
  Tensor k_pe;     //   [T, dr], may be strided
  Tensor cos_sin;  //   [S, dr], accumulator type: dr / 2 cosines, then sines

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& f) const {
    f("q", q, Access::update);
    f("k", k, Access::out);
    f("v", v, Access::out);
    f("kv", kv, Access::in);
    f("k_pe", k_pe, Access::in);
    f("cos_sin", cos_sin, Access::in);
  }
};

// dq[.., dn:] is rotated back in place;  dkv = [dk of k_nope | dv];  dk_pe = the heads' sum, in ascending order, of
// dk's rotary part, rotated back.
struct MlaHeadsBackward {
  static constexpr std::string_view name = "mla_heads_backward";
  static constexpr OpKind kind = OpKind::position;
  Tensor dq;       // in place, [T, n, dn + dr]
  Tensor dkv;      // = [T, n, dn + dv]
  Tensor dk_pe;    // = [T, dr], may be strided
  Tensor dk;       //   [T, n, dn + dr]
  Tensor dv;       //   [T, n, dv]
  Tensor cos_sin;  //   [S, dr]

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& f) const {
    f("dq", dq, Access::update);
    f("dkv", dkv, Access::out);
    f("dk_pe", dk_pe, Access::out);
    f("dk", dk, Access::in);
    f("dv", dv, Access::in);
    f("cos_sin", cos_sin, Access::in);
  }
};

}  // namespace sluice
