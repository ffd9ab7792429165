// What every operation has: a name, a kind, tensors with their access, and check().
//
// An operation is a small struct of tensors and constants, pure and compiled everywhere. It offers
//   static constexpr std::string_view name;
//   static constexpr OpKind kind;                what it does in a model
//   void check() const;                          shapes and dtypes agree, or an internal error naming them
//   template <class V> void visit(V&&) const;    calls v("x", x, Access::in) for each tensor it may touch, undefined
//                                                optional ones too
// and, where it has any,
//   double flops() const;                        multiply and add count as two
//   DType factors() const;                       of its products, where matrices are multiplied; see Cost
//   size_t scratch() const;                      bytes of working memory, where every device needs the same
// Bytes moved follow from visit(). Working memory that one device needs is said beside its kernels (device/scratch.h).
//
// Conventions of all operations: tensors of rank 2 and more may have a row stride, integer ones and statistics are
// dense. Floating tensors have one storage dtype; what is said to be of the accumulator type is, and so are gradients
// of parameters (dw, dgamma). Tensors alias only where a header allows it.
#pragma once

#include <compare>
#include <concepts>
#include <cstdint>
#include <optional>
#include <string_view>

#include "tensor/tensor.h"

namespace sluice {

enum class Access : uint8_t {
  in,      // read
  out,     // written whole: `=`
  update,  // read and written: `+=` or in place
};

// What an operation costs on any device: arithmetic and memory traffic if every tensor is touched once.
struct Cost {
  double flops = 0;
  double bytes_read = 0;
  double bytes_written = 0;
  // The type that both factors of its products are stored in, which decides how fast a device multiplies. Other
  // arithmetic counts as f32.
  DType factors = DType::f32;
  double bytes() const { return bytes_read + bytes_written; }
};

// What an operation does in a model. Plans, reports and the log of kernels sort operations by it.
enum class OpKind : uint8_t {
  linear,     // products with weights that all tokens share
  experts,    // products of the experts
  attention,  // scores, softmax and values, with sinks
  head,       // logits and their loss
  norm,
  activation,  // between the two products of an expert or a dense layer
  position,    // rotary positions
  embedding,
  routing,      // which experts a token goes to, their loads, where its rows will lie
  dispatch,     // moves rows to experts
  combine,      // sums rows up on their way back
  elementwise,  // fills, copies, sums, biases
  optimizer,
};

// Is nearly all of its arithmetic in matrix products?
constexpr bool is_product(OpKind kind) {
  return kind == OpKind::linear || kind == OpKind::experts || kind == OpKind::attention || kind == OpKind::head;
}

// An operation where its type is gone.
struct OpId {
  std::string_view name;
  OpKind kind = {};
  auto operator<=>(const OpId&) const = default;
};
template <class O>
constexpr OpId id_of() {
  return {O::name, O::kind};
}

// The parts of a model that benchmark files name a kernel for (model.backend), and how those of attention mask:
// `MaskForm mask() const` of the operation.
enum class Part : uint8_t { attention, linear, rms_norm, experts, dispatcher };
inline constexpr size_t kParts = 5;
enum class MaskForm : uint8_t { causal, sliding_window, sinks };
inline constexpr size_t kMaskForms = 3;

// The part that operations of a kind belong to, if any. The dispatcher's exchanges are no operations.
constexpr std::optional<Part> part_of(OpKind kind) {
  switch (kind) {
    case OpKind::attention:
      return Part::attention;
    case OpKind::linear:
    case OpKind::head:
      return Part::linear;
    case OpKind::norm:
      return Part::rms_norm;
    case OpKind::experts:
      return Part::experts;
    case OpKind::activation:
    case OpKind::position:
    case OpKind::embedding:
    case OpKind::routing:
    case OpKind::dispatch:
    case OpKind::combine:
    case OpKind::elementwise:
    case OpKind::optimizer:
      break;
  }
  return std::nullopt;
}

template <class O>
concept OfPart = part_of(O::kind).has_value();

template <class O>
MaskForm mask_of(const O& op) {
  if constexpr (requires { op.mask(); }) {
    return op.mask();
  } else {
    return {};
  }
}

// An operation without arithmetic worth counting has no flops().
template <class O>
double flops_of(const O& op) {
  if constexpr (requires { op.flops(); }) {
    return op.flops();
  } else {
    return 0;
  }
}
// The type that both factors of a product are in: of two types the one that both are widened to.
inline DType factors_of(const Tensor& a, const Tensor& b) {
  return a.dtype() == b.dtype() ? a.dtype() : accumulator_of(a.dtype());
}
template <class O>
Cost cost_of(const O& op) {
  Cost cost;
  cost.flops = flops_of(op);
  if constexpr (requires { op.factors(); }) cost.factors = op.factors();
  op.visit([&](std::string_view, const Tensor& t, Access access) {
    const auto bytes = static_cast<double>(t.bytes());
    if (access != Access::out) cost.bytes_read += bytes;
    if (access != Access::in) cost.bytes_written += bytes;
  });
  return cost;
}

// What every type must offer to be an operation.
template <class O>
concept Operation = requires(const O& op, void (*visitor)(std::string_view, const Tensor&, Access)) {
  requires std::same_as<decltype(O::name), const std::string_view>;
  requires std::same_as<decltype(O::kind), const OpKind>;
  op.check();
  op.visit(visitor);
};

// Throws an internal error "op.tensor is X, expected Y" unless shape and dtype are as given.
void expect(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype);
// The same for a tensor whose dtype may be any with arithmetic that has the same accumulator type as `dtype`.
void expect_mixed(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype);
// The same for a dense tensor.
void expect_dense(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype);
// Throws an internal error unless the rank is as given and the dtype has arithmetic (f64, f32, bf16).
void expect_float(std::string_view op, std::string_view tensor, const Tensor& t, int rank);

}  // namespace sluice
