#include <algorithm>

#include "device/cpu/cpu_backend.h"
#include "device/cpu/head_kernels.h"

namespace sluice {

using namespace cpu;

namespace {

// Elements of q a chunk aims at.
constexpr int64_t kGrain = 16384;

int64_t grain(const Tensor& q) {
  return std::max<int64_t>(1, kGrain / std::max<int64_t>(q.shape().inner(), 1));
}

bool fits(const Tensor& q, const Tensor& k_pe) {
  return q.dtype() == DType::f32 && k_pe.dim(1) <= kMostRotary;
}

template <class T>
TokenRows<T> rows_of(const Tensor& t) {
  return {t.data<float>(), t.stride()};
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
  if (!fits(op.q, op.k_pe)) {
    RefBackend::execute(op, scratch);
    return;
  }
  MlaRows rows;
  set_sizes(rows, op.q, op.k_pe, op.v, op.cos_sin);
  rows.q = rows_of<float>(op.q);
  rows.k = rows_of<float>(op.k);
  rows.v = rows_of<float>(op.v);
  rows.kv = rows_of<const float>(op.kv);
  rows.k_pe = rows_of<const float>(op.k_pe);
  pool_.run_ranges(op.q.dim(0), grain(op.q), [&](int64_t begin, int64_t end, int) { mla_heads(rows, begin, end); });
}

void CpuBackend::execute(const MlaHeadsBackward& op, const Tensor& scratch) {
  if (!fits(op.dq, op.dk_pe)) {
    RefBackend::execute(op, scratch);
    return;
  }
  MlaRowsBackward rows;
  set_sizes(rows, op.dq, op.dk_pe, op.dv, op.cos_sin);
  rows.dq = rows_of<float>(op.dq);
  rows.dkv = rows_of<float>(op.dkv);
  rows.dk_pe = rows_of<float>(op.dk_pe);
  rows.dk = rows_of<const float>(op.dk);
  rows.dv = rows_of<const float>(op.dv);
  pool_.run_ranges(op.dq.dim(0), grain(op.dq),
                   [&](int64_t begin, int64_t end, int) { mla_heads_backward(rows, begin, end); });
}

}  // namespace sluice
