#include "ops/op.h"

namespace sluice {

// Messages are put together only when there is something to say: these checks run before every operation.
void expect(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype) {
  require(t.defined() || shape.numel() == 0, "{}: {} is missing", op, tensor);
  if (t.shape() == shape && t.dtype() == dtype) return;
  require(false, "{}: {} is {}, expected {}{}", op, tensor, t.str(), name_of(dtype), shape.str());
}

void expect_mixed(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype) {
  expect_float(op, tensor, t, shape.rank());
  if (t.shape() == shape && accumulator_of(t.dtype()) == accumulator_of(dtype)) return;
  require(false, "{}: {} is {}, expected {}{}", op, tensor, t.str(), name_of(dtype), shape.str());
}

void expect_dense(std::string_view op, std::string_view tensor, const Tensor& t, const Shape& shape, DType dtype) {
  expect(op, tensor, t, shape, dtype);
  if (t.dense()) return;
  require(false, "{}: {} {} must be dense, its stride is {}", op, tensor, t.str(), t.stride());
}

void expect_float(std::string_view op, std::string_view tensor, const Tensor& t, int rank) {
  require(t.defined() || (t.rank() > 0 && t.numel() == 0), "{}: {} is missing", op, tensor);
  const bool arithmetic = t.dtype() == DType::f64 || t.dtype() == DType::f32 || t.dtype() == DType::bf16;
  if (t.rank() == rank && arithmetic) return;
  require(t.rank() == rank, "{}: {} is {}, expected {} dimensions", op, tensor, t.str(), rank);
  require(false, "{}: {} is {}, expected f64, f32 or bf16", op, tensor, t.str());
}

}  // namespace sluice
