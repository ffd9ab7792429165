#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"

namespace sluice {

namespace {
constexpr int64_t kRows = 64;

const float* data_or_null(const Tensor& t) {
  return t ? t.data<float>() : nullptr;
}

cpu::SwigluRows rows_of(const SwigluForm& form) {
  cpu::SwigluRows rows;
  rows.clamped = form.limit != 0;
  rows.limit = static_cast<float>(form.limit);
  rows.alpha = static_cast<float>(form.alpha);
  return rows;
}
}  // namespace

void CpuBackend::execute(const SwigluForward& op, const Tensor& scratch) {
  if (op.h.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  cpu::SwigluRows rows = rows_of(op.form);
  rows.dim = op.h.dim(1);
  rows.h = op.h.data<float>();
  rows.h_stride = op.h.stride();
  rows.gate_up = op.gate_up.data<float>();
  rows.gate_up_stride = op.gate_up.stride();
  rows.weight = data_or_null(op.weight);
  pool_.run_ranges(op.h.dim(0), kRows, [&](int64_t begin, int64_t end, int) { cpu::swiglu_forward(rows, begin, end); });
}

void CpuBackend::execute(const SwigluBackward& op, const Tensor& scratch) {
  if (op.dh.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  cpu::SwigluRows rows = rows_of(op.form);
  rows.dim = op.dh.dim(1);
  rows.gate_up = op.gate_up.data<float>();
  rows.gate_up_stride = op.gate_up.stride();
  rows.weight = data_or_null(op.weight);
  rows.dh = op.dh.data<float>();
  rows.dh_stride = op.dh.stride();
  rows.dgate_up = op.dgate_up.data<float>();
  rows.dgate_up_stride = op.dgate_up.stride();
  rows.dweight = op.dweight ? op.dweight.data<float>() : nullptr;
  pool_.run_ranges(op.dh.dim(0), kRows,
                   [&](int64_t begin, int64_t end, int) { cpu::swiglu_backward(rows, begin, end); });
}

}  // namespace sluice
