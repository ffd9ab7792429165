#include "device/cuda/attention_launch.h"
#include "device/cuda/attention_plans.h"
#include "device/cuda/cuda_backend.h"

namespace sluice::cuda {

KernelSet CudaBackend::execute(const AttentionForward& op, const Tensor& scratch) {
  if (device_.attention_plans().run(op, scratch)) return Kernel::cudnn;
  plain_attention(device_, op, scratch, CausalMask{op.spec.window});
  return Kernel::own_cuda;
}

KernelSet CudaBackend::execute(const AttentionBackward& op, const Tensor& scratch) {
  if (device_.attention_plans().run(op, scratch)) return Kernel::cudnn;
  plain_attention(device_, op, scratch, CausalMask{op.spec.window});
  return Kernel::own_cuda;
}

}  // namespace sluice::cuda
