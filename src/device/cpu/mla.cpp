#include <algorithm>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/head_kernels.h"
#include "device/cpu/storage.h"

namespace sluice {

using namespace cpu;

namespace {

// Elements of q a chunk aims at.
constexpr int64_t kGrain = 16384;

int64_t grain(const Tensor& q) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(q.shape().inner(), 1));
}

// Calls f(T{}) where the kernels can do it; else returns false.
template <class F>
bool dispatch_heads(const Tensor& q, const Tensor& k_pe, F&& f) {
  return k_pe.dim(1) <= kMostRotary && dispatch_storage(q.dtype(), f);
}

template <class T>
TokenRows<T> rows_of(const Tensor& t) {
  return {t.data<std::remove_const_t<T>>(), t.stride()};
}

void set_sizes(MlaSizes& sizes, const Tensor& q, const Tensor& k_pe, const Tensor& v, const Tensor& cos_sin) {
  sizes.heads = q.dim(1);
  sizes.rotary = k_pe.dim(1);
  sizes.nope = q.dim(2) - sizes.rotary;
  sizes.value = v.dim(2);
  sizes.cos_sin = cos_sin.data<float>();
  sizes.positions = cos_sin.dim(0);
}

}  // namespace

void CpuBackend::execute(const MlaHeads& op, const Tensor& scratch) {
  const bool done = dispatch_heads(op.q, op.k_pe, [&]<class T>(T) {
    MlaRows<T> rows;
    set_sizes(rows, op.q, op.k_pe, op.v, op.cos_sin);
    rows.q = rows_of<T>(op.q);
    rows.k = rows_of<T>(op.k);
    rows.v = rows_of<T>(op.v);
    rows.kv = rows_of<const T>(op.kv);
    rows.k_pe = rows_of<const T>(op.k_pe);
    pool_.run_ranges(op.q.dim(0), grain(op.q),
                     [&](int64_t begin, int64_t end, int) { head_kernels<T>().mla_heads(rows, begin, end); });
  });
  if (!done) RefBackend::execute(op, scratch);
}

void CpuBackend::execute(const MlaHeadsBackward& op, const Tensor& scratch) {
  const bool done = dispatch_heads(op.dq, op.dk_pe, [&]<class T>(T) {
    MlaRowsBackward<T> rows;
    set_sizes(rows, op.dq, op.dk_pe, op.dv, op.cos_sin);
    rows.dq = rows_of<T>(op.dq);
    rows.dkv = rows_of<T>(op.dkv);
    rows.dk_pe = rows_of<T>(op.dk_pe);
    rows.dk = rows_of<const T>(op.dk);
    rows.dv = rows_of<const T>(op.dv);
    pool_.run_ranges(op.dq.dim(0), grain(op.dq),
                     [&](int64_t begin, int64_t end, int) { head_kernels<T>().mla_heads_backward(rows, begin, end); });
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
