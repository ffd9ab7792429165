// Moving rows to experts and back. Two plans (which rows go to which rank; which received rows go to which expert) and
// two row operations, each the other's gradient: GatherRows copies, SumRows adds.
#pragma once

#include "ops/op.h"

namespace sluice {

// Which tokens this rank sends to each of R ranks: a token goes once to a rank however many of its experts live there.
// Rank r holds experts [r E/R, (r + 1) E/R). Send rows are ordered by destination, then token.
struct DispatchPlan {
  static constexpr std::string_view name = "dispatch_plan";
  static constexpr OpKind kind = OpKind::routing;
  Tensor counts;      // = i32 [R, 2]: tokens sent to r, and (token, slot) pairs they have there
  Tensor send_token;  // = i32 [T min(K, R)]: token of each send row; -1 behind the last
  Tensor send_row;    // = i32 [T, min(K, R)]: the send rows of a token, ascending (so ranks ascend), then -1
  Tensor experts;     //   i32 [T, K]
  int64_t num_experts = 0;

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("counts", counts, Access::out);
    v("send_token", send_token, Access::out);
    v("send_row", send_row, Access::out);
    v("experts", experts, Access::in);
  }
};

// Counting sort of (token, slot) pairs by expert, stable in token order; only experts [first, first + E) count. A token
// may meet an expert in several slots: each is a row.
// Segments start at multiples of `row_align`; with an alignment above 1 every expert has at least that many rows.
struct ExpertSort {
  static constexpr std::string_view name = "expert_sort";
  static constexpr OpKind kind = OpKind::routing;
  Tensor offsets;    // = i32 [E + 1]
  Tensor row_token;  // = i32 [M]: token of each expert row, -1 for pad rows and behind the last
  Tensor row_slot;   // = i32 [M]: token K + slot of each expert row, -1 likewise
  Tensor slot_row;   // = i32 [T, K]: the expert rows of a token, ascending (so experts ascend), then -1
  Tensor experts;    //   i32 [T, K]
  int64_t first = 0;
  int64_t row_align = 1;
  bool folded = false;  // expert e counts as e mod E; `first` is 0

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("offsets", offsets, Access::out);
    v("row_token", row_token, Access::out);
    v("row_slot", row_slot, Access::out);
    v("slot_row", slot_row, Access::out);
    v("experts", experts, Access::in);
  }
};

// inverse[index[m]] = m for index[m] >= 0, and -1 where no m points. Indices are distinct.
struct InvertIndex {
  static constexpr std::string_view name = "invert_index";
  static constexpr OpKind kind = OpKind::routing;
  Tensor inverse;  // = i32 [N]
  Tensor index;    //   i32 [M], each < N

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("inverse", inverse, Access::out);
    v("index", index, Access::in);
  }
};

// y[m] = index[m] < 0 ? 0 : x[index[m]]. Any dtype; rows of one element are allowed.
struct GatherRows {
  static constexpr std::string_view name = "gather_rows";
  static constexpr OpKind kind = OpKind::dispatch;
  Tensor y;      // = [M, D]
  Tensor x;      //   [T, D]
  Tensor index;  //   i32 [M]

  void check() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::out);
    v("x", x, Access::in);
    v("index", index, Access::in);
  }
};

// y[t] = [add[t] +] sum_j x[index[t, j]], j ascending, entries < 0 skipped; summed in the accumulator type from 0,
// `add` last, rounded once.
struct SumRows {
  static constexpr std::string_view name = "sum_rows";
  static constexpr OpKind kind = OpKind::combine;
  Tensor y;      // = [T, D], may alias add
  Tensor x;      //   [M, D]
  Tensor index;  //   i32 [T, J]
  Tensor add;    //   [T, D], or undefined

  void check() const;
  double flops() const;
  template <class V>
  void visit(V&& v) const {
    v("y", y, Access::out);
    v("x", x, Access::in);
    v("index", index, Access::in);
    v("add", add, Access::in);
  }
};

}  // namespace sluice
