#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/storage.h"

namespace sluice {

using namespace cpu;

namespace {
constexpr int64_t kRows = 64;

template <class T>
SwigluRows<T> rows_of(const SwigluForm& form, const Tensor& gate_up, const Tensor& weight) {
  SwigluRows<T> rows;
  rows.dim = gate_up.dim(1) / 2;
  rows.clamped = form.limit != 0;
  rows.limit = static_cast<float>(form.limit);
  rows.alpha = static_cast<float>(form.alpha);
  rows.gate_up = gate_up.data<T>();
  rows.gate_up_stride = gate_up.stride();
  rows.weight = weight ? weight.data<float>() : nullptr;
  return rows;
}
}  // namespace

void CpuBackend::execute(const SwigluForward& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.h.dtype(), [&]<class T>(T) {
    SwigluRows<T> rows = rows_of<T>(op.form, op.gate_up, op.weight);
    rows.h = op.h.data<T>();
    rows.h_stride = op.h.stride();
    pool_.run_ranges(op.h.dim(0), kRows,
                     [&](int64_t begin, int64_t end, int) { row_kernels<T>().swiglu_forward(rows, begin, end); });
  });
  if (!done) RefBackend::execute(op, scratch);
}

void CpuBackend::execute(const SwigluBackward& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.dh.dtype(), [&]<class T>(T) {
    SwigluRows<T> rows = rows_of<T>(op.form, op.gate_up, op.weight);
    rows.dh = op.dh.data<T>();
    rows.dh_stride = op.dh.stride();
    rows.dgate_up = op.dgate_up.data<T>();
    rows.dgate_up_stride = op.dgate_up.stride();
    rows.dweight = op.dweight ? op.dweight.data<float>() : nullptr;
    pool_.run_ranges(op.dh.dim(0), kRows,
                     [&](int64_t begin, int64_t end, int) { row_kernels<T>().swiglu_backward(rows, begin, end); });
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
