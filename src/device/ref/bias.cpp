#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Calls f(e, m) for every row m of every expert e.
template <class F>
void for_each_row(const Tensor& offsets, int64_t experts, int64_t rows, F&& f) {
  if (offsets) check_offsets(offsets, rows);
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t begin = offsets ? offsets.data<int32_t>()[e] : 0,
                  end = offsets ? offsets.data<int32_t>()[e + 1] : rows;
    for (int64_t m = begin; m < end; ++m) f(e, m);
  }
}

}  // namespace

void RefBackend::execute(const AddBias& op, const Tensor& /*scratch*/) {
  dispatch_float(op.y.dtype(), [&]<class T>(T) {
    for_each_row(op.offsets, op.b.dim(0), op.y.dim(0), [&](int64_t e, int64_t m) {
      const double weight = op.weight ? load(op.weight.data<accumulator_t<T>>()[m]) : 1;
      T* y = row<T>(op.y, m);
      for (int64_t n = 0; n < op.y.dim(1); ++n) store(y[n], load(y[n]) + weight * load(row<T>(op.b, e)[n]));
    });
  });
}

void RefBackend::execute(const BiasBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dy.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    for_each_row(op.offsets, op.db.dim(0), op.dy.dim(0), [&](int64_t e, int64_t m) {
      const double weight = op.weight ? load(op.weight.data<A>()[m]) : 1;
      const T* dy = row<T>(op.dy, m);
      A* db = row<A>(op.db, e);
      double dweight = 0;
      for (int64_t n = 0; n < op.dy.dim(1); ++n) {
        store(db[n], load(db[n]) + weight * load(dy[n]));
        if (op.dweight) dweight += load(dy[n]) * load(row<T>(op.b, e)[n]);
      }
      if (op.dweight) store(op.dweight.data<A>()[m], load(op.dweight.data<A>()[m]) + dweight);
    });
  });
}

}  // namespace sluice
