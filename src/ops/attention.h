// Causal attention with grouped key/value heads over sequences of equal length laid end to end:
//   o = softmax(scale q k^T + mask) v,   lse = log sum exp of the scaled, masked scores.
// T = B S rows; query head h reads key/value head h / (n / kv). A window W > 0 lets a query see the last W keys, itself
// included. Scores are never materialised (online softmax). With P past keys the queries are the last S of P + S
// positions: k and v have B (P + S) rows, and query i of a sequence sees its keys up to P + i. Forward only.
#pragma once

#include "ops/op.h"

namespace sluice {

struct AttentionSpec {
  int64_t seq_len = 0;  // S, divides T
  int64_t window = 0;   // 0: all earlier keys
  double scale = 1;
  int64_t past = 0;  // P

  // Of a sequence.
  int64_t keys() const { return past + seq_len; }
  // A window of all keys hides none.
  MaskForm mask() const { return window > 0 && window < keys() ? MaskForm::sliding_window : MaskForm::causal; }
  // Query-key pairs that count in one sequence.
  double pairs() const;
};

struct AttentionForward {
  static constexpr std::string_view name = "attention_forward";
  static constexpr OpKind kind = OpKind::attention;
  Tensor o;    // = [T, n, dv]
  Tensor lse;  // = [T, n], accumulator type, kept for backward
  Tensor q;    //   [T, n, d], may be strided, as k and v
  Tensor k;    //   [B (P + S), kv, d]
  Tensor v;    //   [B (P + S), kv, dv]
  AttentionSpec spec;

  MaskForm mask() const { return spec.mask(); }
  void check() const;
  double flops() const;
  DType factors() const { return factors_of(q, k); }
  template <class V>
  void visit(V&& f) const {
    f("o", o, Access::out);
    f("lse", lse, Access::out);
    f("q", q, Access::in);
    f("k", k, Access::in);
    f("v", v, Access::in);
  }
};

// p = exp(scale q k^T - lse), dp = do v^T, ds = p (dp - rowsum(do o)):
//   dq = scale ds k,  dk = scale ds^T q,  dv = p^T do.
struct AttentionBackward {
  static constexpr std::string_view name = "attention_backward";
  static constexpr OpKind kind = OpKind::attention;
  Tensor dq;   // = [T, n, d], may be strided, as dk and dv
  Tensor dk;   // = [T, kv, d]
  Tensor dv;   // = [T, kv, dv]
  Tensor d_o;  //   [T, n, dv]
  Tensor o;    //   [T, n, dv]
  Tensor lse;  //   [T, n]
  Tensor q;    //   [T, n, d]
  Tensor k;    //   [T, kv, d]
  Tensor v;    //   [T, kv, dv]
  AttentionSpec spec;

  MaskForm mask() const { return spec.mask(); }
  void check() const;
  double flops() const;
  DType factors() const { return factors_of(q, k); }
  template <class V>
  void visit(V&& f) const {
    f("dq", dq, Access::out);
    f("dk", dk, Access::out);
    f("dv", dv, Access::out);
    f("d_o", d_o, Access::in);
    f("o", o, Access::in);
    f("lse", lse, Access::in);
    f("q", q, Access::in);
    f("k", k, Access::in);
    f("v", v, Access::in);
  }
};

}  // namespace sluice
