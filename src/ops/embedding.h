// Token embedding.
#pragma once

#include "ops/op.h"

namespace sluice {

// y[t] = w[tokens[t]]
struct EmbeddingForward {
  static constexpr std::string_view name = "embedding_forward";
  static constexpr OpKind kind = OpKind::embedding;
  Tensor y;       // = [T, D]
  Tensor w;       //   [V, D]
  Tensor tokens;  //   i32 [T], each in [0, V)

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::out);
    v("w", w, Access::in);
    v("tokens", tokens, Access::in);
  }
};

// dw[tokens[t]] += dy[t], in token order.
struct EmbeddingBackward {
  static constexpr std::string_view name = "embedding_backward";
  static constexpr OpKind kind = OpKind::embedding;
  Tensor dw;      // += [V, D]
  Tensor dy;      //   [T, D]
  Tensor tokens;  //   i32 [T]

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("dw", dw, Access::update);
    v("dy", dy, Access::in);
    v("tokens", tokens, Access::in);
  }
};

}  // namespace sluice
