// What every operation has: a name, tensors with their access, check(), cost() and scratch().
//
// An operation is a small struct of tensors and constants, pure and compiled everywhere. It offers
//   static constexpr std::string_view name;
//   void check() const;                          shapes and dtypes agree, or an internal error naming them
//   template <class V> void visit(V&&) const;    calls v("x", x, Access::in) for each tensor it may touch, undefined
//                                                optional ones too
// and, where it has any,
//   double flops() const;                        multiply and add count as two
//   size_t scratch(const Target&) const;         bytes of working memory
// Bytes moved follow from visit().
//
// Conventions of all operations: tensors of rank 2 and more may have a row stride, integer ones and statistics are
// dense. Floating tensors have one storage dtype; what is said to be of the accumulator type is, and so are gradients
// of parameters (dw, dgamma). Tensors alias only where a header allows it.
#pragma once

#include <concepts>
#include <cstdint>
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
  double bytes() const { return bytes_read + bytes_written; }
};

enum class Platform : uint8_t { cpu, cuda };

// What scratch and row alignment depend on.
struct Target {
  int row_align = 1;  // expert segments start at multiples of this
  int workers = 1;    // cpu: threads that may run chunks of one operation at the same time
  Platform platform = Platform::cpu;
};

// The parts of a model that benchmark files name a kernel for (model.backend). Operations of a part say which:
// `static constexpr Part part`; those of attention also how they mask: `MaskForm mask() const`.
enum class Part : uint8_t { attention, linear, rms_norm, experts, dispatcher };
inline constexpr size_t kParts = 5;
enum class MaskForm : uint8_t { causal, sliding_window, sinks };
inline constexpr size_t kMaskForms = 3;

template <class O>
concept OfPart = requires {
  { O::part } -> std::convertible_to<Part>;
};

template <class O>
MaskForm mask_of(const O& op) {
  if constexpr (requires { op.mask(); }) {
    return op.mask();
  } else {
    return {};
  }
}

// An operation without arithmetic worth counting has no flops(), one without scratch has no scratch().
template <class O>
double flops_of(const O& op) {
  if constexpr (requires { op.flops(); }) {
    return op.flops();
  } else {
    return 0;
  }
}
template <class O>
size_t scratch_of(const O& op, const Target& target) {
  if constexpr (requires { op.scratch(target); }) {
    return op.scratch(target);
  } else {
    return 0;
  }
}

template <class O>
Cost cost_of(const O& op) {
  Cost cost;
  cost.flops = flops_of(op);
  op.visit([&](std::string_view, const Tensor& t, Access access) {
    const auto bytes = static_cast<double>(t.bytes());
    if (access != Access::out) cost.bytes_read += bytes;
    if (access != Access::in) cost.bytes_written += bytes;
  });
  return cost;
}

// Throws an internal error "op.tensor is X, expected Y" unless shape and dtype are as given.
void expect(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype);
// The same for a tensor whose dtype may be any with arithmetic that has the same accumulator type as `dtype`.
void expect_mixed(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype);
// The same for a dense tensor.
void expect_dense(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype);
// Throws an internal error unless the rank is as given and the dtype has arithmetic (f64, f32, bf16).
void expect_float(std::string_view op, std::string_view tensor, const Tensor& t, int rank);

}  // namespace sluice
