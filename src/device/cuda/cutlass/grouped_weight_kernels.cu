// A file of its own because CUTLASS takes long to compile: two may go side by side.
#include "device/cuda/cutlass/grouped_launch.h"
#include "device/cuda/grouped_kernels.h"

namespace sluice::cuda {

namespace {

// dy^T x, into gradients that are there
using TransposedTimes = GroupedProduct<cutlass::layout::ColumnMajor, cutlass::layout::RowMajor, float, true>;

}  // namespace

bool run_grouped(Device& device, const GroupedGemmWeight& op, const Tensor& scratch) {
  if (!has_grouped_kernels(device)) return false;
  const auto problems = make_problems(device, op, scratch);
  if (!problems) return false;
  TransposedTimes::run(device, *problems, GroupedGemmWeight::name);
  return true;
}

}  // namespace sluice::cuda
