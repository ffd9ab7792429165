#include "device/cuda/cuda_backend.h"
#include "device/cuda/topk.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kSlotsPerBlock = 16 * kThreads;

// Counts in shared memory, then one addition for each block and expert: whole numbers, exact in any order.
template <class A>
__global__ void __launch_bounds__(kThreads)
    expert_load(A* load, const int32_t* experts, int64_t slots, int64_t num_experts, Fault* fault) {
  int* counts = dynamic_shared<int>();
  for (int64_t e = threadIdx.x; e < num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < slots; i += int64_t{gridDim.x} * kThreads) {
    const int64_t expert = experts[i];
    if (checked(fault, FaultKind::expert, expert, num_experts) == expert) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < num_experts; e += kThreads) {
    if (counts[e] != 0) atomicAdd(&load[e], static_cast<A>(counts[e]));
  }
}

// A warp makes a token.
template <class A>
__global__ void __launch_bounds__(kRouterThreads)
    balance_loss_backward(A* dlogits, int64_t dlogits_stride, const A* probs, int64_t probs_stride, const A* load,
                          const double* grad_scale, double factor, int64_t num_tokens, int64_t run_tokens,
                          int64_t num_experts, bool sigmoid) {
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  dlogits += token * dlogits_stride;
  probs += token * probs_stride;
  load += token / run_tokens * num_experts;
  A sum = 0, inner = 0;
  for (int64_t e = lane; e < num_experts; e += kWarp) {
    sum += probs[e];
    inner += probs[e] * load[e];
  }
  sum = sigmoid ? warp_sum(sum) : A{1};
  inner = warp_sum(inner) / sum;
  const A scale = static_cast<A>(factor * grad_scale[0]) / sum;
  for (int64_t e = lane; e < num_experts; e += kWarp) {
    dlogits[e] += scale * probs[e] * (sigmoid ? 1 - probs[e] : A{1}) * (load[e] - inner);
  }
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    balance_bias(A* bias, const A* load, double mean, double rate, int64_t count) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= count) return;
  const double missing = mean - static_cast<double>(load[e]);
  const double step = missing > 0 ? rate : missing < 0 ? -rate : 0;
  bias[e] = static_cast<A>(static_cast<double>(bias[e]) + step);
}

template <class A>
__global__ void __launch_bounds__(kThreads) load_share(A* share, const A* load, double slots, int64_t count) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e < count) share[e] = static_cast<A>(static_cast<double>(load[e]) / slots);
}

}  // namespace

void CudaBackend::execute(const ExpertLoad& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.load.dtype(), [&]<class A>(A) {
    const int64_t num_experts = op.load.dim(0);
    launch(ExpertLoad::name, expert_load<A>, blocks_for(op.experts.numel(), kSlotsPerBlock, device_.num_sms()),
           kThreads, static_cast<size_t>(num_experts) * sizeof(int), device_.stream(), op.load.data<A>(),
           op.experts.data<int32_t>(), op.experts.numel(), num_experts, device_.fault());
  });
}

void CudaBackend::execute(const BalanceLossBackward& op, const Tensor& /*scratch*/) {
  const int64_t num_tokens = op.dlogits.dim(0), num_experts = op.dlogits.dim(1);
  if (num_tokens == 0) return;
  const double factor = op.coef * static_cast<double>(num_experts) / static_cast<double>(op.slots);
  dispatch_accumulator(op.dlogits.dtype(), [&]<class A>(A) {
    const WarpPerToken shape(num_tokens, 0);
    launch(BalanceLossBackward::name, balance_loss_backward<A>, shape.grid, shape.threads, 0, device_.stream(),
           op.dlogits.data<A>(), op.dlogits.stride(), op.probs.data<A>(), op.probs.stride(), op.load.data<A>(),
           op.grad_scale.data<double>(), factor, num_tokens, op.run_tokens(), num_experts, op.sigmoid);
  });
}

void CudaBackend::execute(const BalanceBias& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.bias.dtype(), [&]<class A>(A) {
    launch(BalanceBias::name, balance_bias<A>, blocks(ceil_div(op.bias.dim(0), kThreads)), kThreads, 0,
           device_.stream(), op.bias.data<A>(), op.load.data<A>(), op.mean, op.rate, op.bias.dim(0));
  });
}

void CudaBackend::execute(const LoadShare& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.share.dtype(), [&]<class A>(A) {
    launch(LoadShare::name, load_share<A>, blocks(ceil_div(op.share.dim(0), kThreads)), kThreads, 0, device_.stream(),
           op.share.data<A>(), op.load.data<A>(), op.slots, op.share.dim(0));
  });
}

}  // namespace sluice::cuda
