// Matrix products. Matrices are row-major and may be strided; sums are kept in the accumulator type of the dtype.
// bf16 and f32 operands and results may be mixed freely (router logits, weight gradients); f64 stays among itself.
#pragma once

#include "ops/op.h"

namespace sluice {

// c = a' b'   or   c += a' b',   a' = trans_a ? a^T : a, likewise b'.   [M, N] = [M, K] [K, N]
struct Gemm {
  static constexpr std::string_view name = "gemm";
  static constexpr OpKind kind = OpKind::linear;
  Tensor c;  // = or +=, [M, N]
  Tensor a;  //   [M, K], or [K, M] if trans_a
  Tensor b;  //   [K, N], or [N, K] if trans_b
  bool trans_a = false;
  bool trans_b = false;
  bool accumulate = false;

  int64_t m() const { return c.dim(0); }
  int64_t n() const { return c.dim(1); }
  int64_t k() const { return trans_a ? a.dim(0) : a.dim(1); }
  void check() const;
  double flops() const;
  DType factors() const { return factors_of(a, b); }
  template <class V>
  void visit(V&& v) const {
    v("c", c, accumulate ? Access::update : Access::out);
    v("a", a, Access::in);
    v("b", b, Access::in);
  }
};

// One product per expert over its rows of a sorted matrix:
//   y[rows of e] = x[rows of e] w[e]'     rows of e = [offsets[e], offsets[e + 1])
// Rows before offsets[0] or from offsets[E] on are not touched.
struct GroupedGemm {
  static constexpr std::string_view name = "grouped_gemm";
  static constexpr OpKind kind = OpKind::experts;
  Tensor y;        // = [M, N]
  Tensor x;        //   [M, K]
  Tensor w;        //   [E, K, N], or [E, N, K] if trans_w
  Tensor offsets;  //   i32 [E + 1], non-decreasing, at most M
  bool trans_w = false;

  int64_t n() const { return trans_w ? w.dim(1) : w.dim(2); }
  int64_t k() const { return trans_w ? w.dim(2) : w.dim(1); }
  void check() const;
  double flops() const;
  DType factors() const { return factors_of(x, w); }
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::out);
    v("x", x, Access::in);
    v("w", w, Access::in);
    v("offsets", offsets, Access::in);
  }
};

// dw[e] += dy[rows of e]^T x[rows of e]. An expert without rows keeps its gradient.
struct GroupedGemmWeight {
  static constexpr std::string_view name = "grouped_gemm_weight";
  static constexpr OpKind kind = OpKind::experts;
  Tensor dw;       // += [E, N, K]
  Tensor dy;       //   [M, N]
  Tensor x;        //   [M, K]
  Tensor offsets;  //   i32 [E + 1]

  void check() const;
  double flops() const;
  DType factors() const { return factors_of(dy, x); }
  template <class V>
  void visit(V&& v) const {
    v("dw", dw, Access::update);
    v("dy", dy, Access::in);
    v("x", x, Access::in);
    v("offsets", offsets, Access::in);
  }
};

}  // namespace sluice
