// Fills, copies, sums: the small change of the engine.
#pragma once

#include "ops/op.h"

namespace sluice {

// x = value
struct Fill {
  static constexpr std::string_view name = "fill";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor x;  // = any shape, floating or i32
  double value = 0;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("x", x, Access::out);
  }
};

// x[i] = std * normal(key, first + i), sampled in f64 and cast: element i of a parameter has the same value however the
// parameter is sharded.
struct FillNormal {
  static constexpr std::string_view name = "fill_normal";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor x;  // = dense, floating
  double std = 0;
  uint64_t key = 0;
  int64_t first = 0;

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("x", x, Access::out);
  }
};

// y = x, converting between floating types; both may be strided.
struct Copy {
  static constexpr std::string_view name = "copy";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor y;  // = any shape
  Tensor x;  //   as y; same dtype unless both are floating

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::out);
    v("x", x, Access::in);
  }
};

// y = y + x
struct Add {
  static constexpr std::string_view name = "add";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor y;  // += any shape
  Tensor x;  //   as y

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::update);
    v("x", x, Access::in);
  }
};

// sum[0] += sum of x, or of x^2. Summed in f64 in a fixed order.
struct Sum {
  static constexpr std::string_view name = "sum";
  static constexpr OpKind kind = OpKind::elementwise;
  Tensor sum;  // += f64 [1]
  Tensor x;    //   dense, floating
  bool squares = false;

  void check() const;
  double flops() const;
  size_t scratch() const;
  // Elements summed on their own before the parts are added in order.
  static constexpr int64_t kPart = int64_t{1} << 16;
  template <class V>
  void visit(V&& v) const {
    v("sum", sum, Access::update);
    v("x", x, Access::in);
  }
};

}  // namespace sluice
