#include <algorithm>
#include <vector>

#include "device/ref/loops.h"
#include "device/ref/ref_backend.h"

namespace sluice {

using namespace ref;

namespace {

// Rotates the pairs of `from` (numbers of any type) by the angles of a row of cos_sin, or back, into `to`.
template <class To, class From, class A>
void rotate_pairs(To* to, const From* from, const A* cos_sin, int64_t dim, bool inverse) {
  for (int64_t i = 0; i < dim / 2; ++i) {
    const double c = load(cos_sin[i]), s = inverse ? -load(cos_sin[dim / 2 + i]) : load(cos_sin[dim / 2 + i]);
    const double first = load(from[2 * i]), second = load(from[2 * i + 1]);
    store(to[2 * i], first * c - second * s);
    store(to[2 * i + 1], second * c + first * s);
  }
}

}  // namespace

void RefBackend::execute(const MlaHeads& op, const Tensor& /*scratch*/) {
  dispatch_float(op.q.dtype(), [&]<class T>(T) {
    const int64_t n = op.q.dim(1), dr = op.k_pe.dim(1), dn = op.q.dim(2) - dr, dv = op.v.dim(2);
    for (int64_t t = 0; t < op.q.dim(0); ++t) {
      const auto* cos_sin = row<accumulator_t<T>>(op.cos_sin, t % op.cos_sin.dim(0));
      for (int64_t h = 0; h < n; ++h) {
        T* q = row<T>(op.q, t) + h * (dn + dr);
        T* k = row<T>(op.k, t) + h * (dn + dr);
        const T* kv = row<T>(op.kv, t) + h * (dn + dv);
        rotate_pairs(q + dn, q + dn, cos_sin, dr, false);
        for (int64_t i = 0; i < dn; ++i) k[i] = kv[i];
        rotate_pairs(k + dn, row<T>(op.k_pe, t), cos_sin, dr, false);
        for (int64_t i = 0; i < dv; ++i) row<T>(op.v, t)[h * dv + i] = kv[dn + i];
      }
    }
  });
}

void RefBackend::execute(const MlaHeadsBackward& op, const Tensor& /*scratch*/) {
  dispatch_float(op.dq.dtype(), [&]<class T>(T) {
    const int64_t n = op.dq.dim(1), dr = op.dk_pe.dim(1), dn = op.dq.dim(2) - dr, dv = op.dv.dim(2);
    std::vector<double> sum(static_cast<size_t>(dr));
    for (int64_t t = 0; t < op.dq.dim(0); ++t) {
      const auto* cos_sin = row<accumulator_t<T>>(op.cos_sin, t % op.cos_sin.dim(0));
      std::fill(sum.begin(), sum.end(), 0);
      for (int64_t h = 0; h < n; ++h) {
        T* dq = row<T>(op.dq, t) + h * (dn + dr);
        const T* dk = row<T>(op.dk, t) + h * (dn + dr);
        T* dkv = row<T>(op.dkv, t) + h * (dn + dv);
        rotate_pairs(dq + dn, dq + dn, cos_sin, dr, true);
        for (int64_t i = 0; i < dn; ++i) dkv[i] = dk[i];
        for (int64_t i = 0; i < dv; ++i) dkv[dn + i] = row<T>(op.dv, t)[h * dv + i];
        for (int64_t i = 0; i < dr; ++i) sum[static_cast<size_t>(i)] += load(dk[dn + i]);
      }
      rotate_pairs(row<T>(op.dk_pe, t), sum.data(), cos_sin, dr, true);
    }
  });
}

}  // namespace sluice
