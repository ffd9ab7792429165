#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Rows of expert e in a sorted matrix.
struct Segment {
  int64_t begin;
  int64_t end;
};

Segment segment(const Tensor& offsets, int64_t e) {
  return {offsets.data<int32_t>()[e], offsets.data<int32_t>()[e + 1]};
}

// Calls f(A{}, B{}, C{}) with the types of three dtypes that share an accumulator type.
template <class F>
void dispatch_product(const Tensor& a, const Tensor& b, const Tensor& c, F&& f) {
  dispatch_mixed(a.dtype(), b.dtype(), [&]<class A, class B>(A, B) {
    dispatch_mixed(a.dtype(), c.dtype(), [&]<class A2, class C>(A2, C) {
      if constexpr (std::is_same_v<A, A2>) f(A{}, B{}, C{});
    });
  });
}

}  // namespace

KernelSet RefBackend::execute(const Gemm& op, const Tensor& /*scratch*/) {
  dispatch_product(op.a, op.b, op.c, [&]<class A, class B, class C>(A, B, C) {
    const auto a = op.trans_a ? matrix<A>(op.a).transposed() : matrix<A>(op.a);
    const auto b = op.trans_b ? matrix<B>(op.b).transposed() : matrix<B>(op.b);
    multiply(matrix<C>(op.c), a, b, op.m(), op.n(), op.k(), op.accumulate);
  });
  return Kernel::reference;
}

KernelSet RefBackend::execute(const GroupedGemm& op, const Tensor& /*scratch*/) {
  check_offsets(op.offsets, op.x.dim(0));
  dispatch_product(op.x, op.w, op.y, [&]<class X, class W, class Y>(X, W, Y) {
    for (int64_t e = 0; e < op.w.dim(0); ++e) {
      const auto [begin, end] = segment(op.offsets, e);
      const Matrix<W> stored{row<W>(op.w, e), op.w.dim(2), 1};
      multiply(matrix<Y>(op.y.rows(begin, end - begin)), matrix<X>(op.x.rows(begin, end - begin)),
               op.trans_w ? stored.transposed() : stored, end - begin, op.n(), op.k(), false);
    }
  });
  return Kernel::reference;
}

KernelSet RefBackend::execute(const GroupedGemmWeight& op, const Tensor& /*scratch*/) {
  check_offsets(op.offsets, op.dy.dim(0));
  dispatch_product(op.dy, op.x, op.dw, [&]<class DY, class X, class DW>(DY, X, DW) {
    for (int64_t e = 0; e < op.dw.dim(0); ++e) {
      const auto [begin, end] = segment(op.offsets, e);
      if (begin == end) continue;
      const Matrix<DW> dw{row<DW>(op.dw, e), op.dw.dim(2), 1};
      multiply(dw, matrix<DY>(op.dy.rows(begin, end - begin)).transposed(), matrix<X>(op.x.rows(begin, end - begin)),
               op.dw.dim(1), op.dw.dim(2), end - begin, true);
    }
  });
  return Kernel::reference;
}

}  // namespace sluice
