#include <algorithm>
#include <cstring>

#include "base/philox.h"
#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Rows of any tensor; one of rank 0 has none.
int64_t num_rows(const Tensor& t) {
  return t.rank() == 0 ? 0 : t.dim(0);
}

}  // namespace

void RefBackend::execute(const Fill& op, const Tensor& /*scratch*/) {
  const auto fill = [&]<class T>(T value) {
    for (int64_t i = 0; i < num_rows(op.x); ++i) std::fill_n(row<T>(op.x, i), op.x.shape().inner(), value);
  };
  if (op.x.dtype() == DType::i32) {
    fill(static_cast<int32_t>(op.value));
  } else {
    dispatch_float(op.x.dtype(), [&]<class T>(T) { fill(static_cast<T>(op.value)); });
  }
}

void RefBackend::execute(const FillNormal& op, const Tensor& /*scratch*/) {
  const Philox random(op.key);
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    T* x = op.x.data<T>();
    for (int64_t i = 0; i < op.x.numel(); ++i) {
      store(x[i], op.std * random.normal(static_cast<uint64_t>(op.first + i)));
    }
  });
}

void RefBackend::execute(const Copy& op, const Tensor& /*scratch*/) {
  const int64_t inner = op.x.shape().inner();
  if (op.x.dtype() == op.y.dtype()) {
    const auto size = static_cast<int64_t>(size_of(op.x.dtype()));
    for (int64_t i = 0; i < num_rows(op.x); ++i) {
      std::memcpy(static_cast<char*>(op.y.raw()) + i * op.y.stride() * size,
                  static_cast<const char*>(op.x.raw()) + i * op.x.stride() * size, static_cast<size_t>(inner * size));
    }
    return;
  }
  dispatch_float(op.x.dtype(), [&]<class X>(X) {
    dispatch_float(op.y.dtype(), [&]<class Y>(Y) {
      for (int64_t i = 0; i < num_rows(op.x); ++i) {
        for (int64_t j = 0; j < inner; ++j) store(row<Y>(op.y, i)[j], load(row<X>(op.x, i)[j]));
      }
    });
  });
}

void RefBackend::execute(const Add& op, const Tensor& /*scratch*/) {
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    for (int64_t i = 0; i < num_rows(op.y); ++i) {
      T* y = row<T>(op.y, i);
      const T* x = row<T>(op.x, i);
      for (int64_t j = 0; j < op.y.shape().inner(); ++j) store(y[j], load(y[j]) + load(x[j]));
    }
  });
}

void RefBackend::execute(const Sum& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const T* x = op.x.data<T>();
    double total = 0;
    for (int64_t begin = 0; begin < op.x.numel(); begin += Sum::kPart) {
      const int64_t end = std::min(begin + Sum::kPart, op.x.numel());
      double part = 0;
      for (int64_t i = begin; i < end; ++i) part += op.squares ? load(x[i]) * load(x[i]) : load(x[i]);
      total += part;
    }
    op.sum.data<double>()[0] += total;
  });
}

}  // namespace sluice
