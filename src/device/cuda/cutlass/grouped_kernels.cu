#include <cutlass/version.h>

#include "device/cuda/cutlass/grouped_launch.h"
#include "device/cuda/grouped_kernels.h"

namespace sluice::cuda {

namespace {

using cutlass::bfloat16_t;
using cutlass::layout::ColumnMajor;
using cutlass::layout::RowMajor;
using TimesTransposed = GroupedProduct<RowMajor, ColumnMajor, bfloat16_t, false>;  // x w^T
using Times = GroupedProduct<RowMajor, RowMajor, bfloat16_t, false>;               // x w

}  // namespace

bool run_grouped(Device& device, const GroupedGemm& op, const Tensor& scratch) {
  if (!has_grouped_kernels(device)) return false;
  const auto problems = make_problems(device, op, scratch);
  if (!problems) return false;
  op.trans_w ? TimesTransposed::run(device, *problems, GroupedGemm::name)
             : Times::run(device, *problems, GroupedGemm::name);
  return true;
}

std::string grouped_version() {
  return fmt::format("CUTLASS {}.{}", CUTLASS_MAJOR, CUTLASS_MINOR);
}

}  // namespace sluice::cuda
