#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"

namespace sluice {

void CpuBackend::execute(const Rope& op, const Tensor& scratch) {
  if (op.x.dtype() != DType::f32) {
    RefBackend::execute(op, scratch);
    return;
  }
  constexpr int64_t kGrain = 64;
  const cpu::RopeRows rows{.x = {op.x.data<float>(), op.x.stride(), op.x.dim(1), op.x.dim(2)},
                           .cos_sin = op.cos_sin.data<float>(),
                           .cos_sin_stride = op.cos_sin.stride(),
                           .positions = op.cos_sin.dim(0),
                           .inverse = op.inverse};
  pool_.run_ranges(op.x.dim(0), kGrain, [&](int64_t begin, int64_t end, int) { cpu::rope(rows, begin, end); });
}

}  // namespace sluice
