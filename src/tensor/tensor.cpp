#include "tensor/tensor.h"

namespace sluice {

Shape::Shape(std::initializer_list<int64_t> dims) {
  require(dims.size() <= kMaxRank, "a shape has at most {} dimensions, not {}", +kMaxRank, dims.size());
  for (const int64_t dim : dims) {
    require(dim >= 0, "dimension {} is negative", dim);
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
}

int64_t Shape::numel() const {
  return rank_ == 0 ? 0 : dims_[0] * inner();
}

int64_t Shape::inner() const {
  int64_t product = 1;
  for (int i = 1; i < rank_; ++i) product *= (*this)[i];
  return product;
}

std::string Shape::str() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) text += (i > 0 ? ", " : "") + std::to_string((*this)[i]);
  return text + "]";
}

namespace {

void* offset(void* data, int64_t elements, DType dtype) {
  return data == nullptr ? nullptr : static_cast<char*>(data) + elements * static_cast<int64_t>(size_of(dtype));
}

}  // namespace

Tensor Tensor::view(Shape shape) const {
  if (!dense()) require(false, "only a dense tensor can be reshaped, not {} with stride {}", str(), stride_);
  if (shape.numel() != numel()) require(false, "{} has not as many elements as {}", str(), shape.str());
  return {data_, shape, dtype_};
}

Tensor Tensor::rows(int64_t begin, int64_t count) const {
  const bool inside = rank() >= 1 && begin >= 0 && count >= 0 && begin + count <= dim(0);
  if (!inside) require(false, "rows {} + {} of {}", begin, count, str());
  Shape shape;
  switch (rank()) {
    case 1:
      shape = {count};
      break;
    case 2:
      shape = {count, dim(1)};
      break;
    case 3:
      shape = {count, dim(1), dim(2)};
      break;
    default:
      shape = {count, dim(1), dim(2), dim(3)};
      break;
  }
  return {offset(data_, begin * stride_, dtype_), shape, dtype_, stride_};
}

Tensor Tensor::cols(int64_t begin, int64_t count) const {
  const bool inside = rank() == 2 && begin >= 0 && count >= 0 && begin + count <= dim(1);
  if (!inside) require(false, "columns {} + {} of {}", begin, count, str());
  return {offset(data_, begin, dtype_), {dim(0), count}, dtype_, stride_};
}

Tensor Tensor::split_cols(int64_t n, int64_t d) const {
  if (rank() != 2 || n * d != dim(1)) require(false, "columns of {} as {} x {}", str(), n, d);
  return {data_, {dim(0), n, d}, dtype_, stride_};
}

std::string Tensor::str() const {
  return std::string(name_of(dtype_)) + shape_.str();
}

}  // namespace sluice
