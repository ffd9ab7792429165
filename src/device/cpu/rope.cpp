#include "device/cpu/cpu_backend.h"
#include "device/cpu/row_kernels.h"
#include "device/cpu/storage.h"

namespace sluice {

using namespace cpu;

void CpuBackend::execute(const Rope& op, const Tensor& scratch) {
  const bool done = dispatch_storage(op.x.dtype(), [&]<class T>(T) {
    constexpr int64_t kGrain = 64;
    const RopeRows<T> rows{.x = {op.x.data<T>(), op.x.stride(), op.x.dim(1), op.x.dim(2)},
                           .cos_sin = op.cos_sin.data<float>(),
                           .cos_sin_stride = op.cos_sin.stride(),
                           .positions = op.cos_sin.dim(0),
                           .inverse = op.inverse};
    pool_.run_ranges(op.x.dim(0), kGrain,
                     [&](int64_t begin, int64_t end, int) { row_kernels<T>().rope(rows, begin, end); });
  });
  if (!done) RefBackend::execute(op, scratch);
}

}  // namespace sluice
