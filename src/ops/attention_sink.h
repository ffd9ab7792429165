// A learned logit per head that joins the softmax's denominator and attends to nothing, as a correction of attention
// without it: with lse' = log(exp(lse) + exp(sink)),  o' = o exp(lse - lse').   [GPT-OSS 2025; Xiao et al. 2023]
// Given o' and lse', AttentionBackward computes the right dq, dk and dv as it stands: p = exp(s - lse') and the row sum
// of do o' are those of the softmax with the sink.
#pragma once

#include "ops/op.h"

namespace sluice {

struct AttentionSink {
  static constexpr std::string_view name = "attention_sink";
  static constexpr OpKind kind = OpKind::attention;
  Tensor o;      // in place, [T, n, dv]
  Tensor lse;    // in place, [T, n], accumulator type
  Tensor sinks;  //   [n]

  MaskForm mask() const { return MaskForm::sinks; }
  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& f) const {
    f("o", o, Access::update);
    f("lse", lse, Access::update);
    f("sinks", sinks, Access::in);
  }
};

// dsinks[h] += -sum over t of exp(sink[h] - lse[t, h]) <do[t, h], o[t, h]>, with o and lse after AttentionSink.
struct AttentionSinkBackward {
  static constexpr std::string_view name = "attention_sink_backward";
  static constexpr OpKind kind = OpKind::attention;
  Tensor dsinks;  // += [n], accumulator type
  Tensor d_o;     //   [T, n, dv]
  Tensor o;       //   [T, n, dv]
  Tensor lse;     //   [T, n], accumulator type
  Tensor sinks;   //   [n]

  MaskForm mask() const { return MaskForm::sinks; }
  void check() const;
  double flops() const;
  // A partial sum for each row and head; a CPU makes fewer.
  size_t scratch() const;
  template <class V>
  void visit(V&& f) const {
    f("dsinks", dsinks, Access::update);
    f("d_o", d_o, Access::in);
    f("o", o, Access::in);
    f("lse", lse, Access::in);
    f("sinks", sinks, Access::in);
  }
};

}  // namespace sluice
