// Biases of projections: one for all rows, or one per expert over rows sorted by expert, scaled by a row's routing
// weight where there is one.
#pragma once

#include "ops/op.h"

namespace sluice {

// y[m] += weight[m] b[e]   for the rows m of expert e, [offsets[e], offsets[e + 1]); without offsets E is 1 and all
// rows are its. Other rows are not touched.
struct AddBias {
  static constexpr std::string_view name = "add_bias";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor y;        // += [M, N]
  Tensor b;        //   [E, N]
  Tensor offsets;  //   i32 [E + 1], or undefined
  Tensor weight;   //   [M], accumulator type, or undefined

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::update);
    v("b", b, Access::in);
    v("offsets", offsets, Access::in);
    v("weight", weight, Access::in);
  }
};

// db[e] += sum over the rows m of expert e of weight[m] dy[m];   dweight[m] += <dy[m], b[e]>.
struct BiasBackward {
  static constexpr std::string_view name = "bias_backward";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor db;       // += [E, N], accumulator type
  Tensor dweight;  // += [M], accumulator type, or undefined
  Tensor dy;       //   [M, N]
  Tensor b;        //   [E, N], needed for dweight
  Tensor offsets;  //   i32 [E + 1], or undefined
  Tensor weight;   //   [M], accumulator type, or undefined

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("db", db, Access::update);
    v("dweight", dweight, Access::update);
    v("dy", dy, Access::in);
    v("b", b, Access::in);
    v("offsets", offsets, Access::in);
    v("weight", weight, Access::in);
  }
};

}  // namespace sluice
