#include "device/cuda/cuda_backend.h"
#include "device/cuda/topk.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = kRouterThreads;

template <class A>
__global__ void __launch_bounds__(kThreads)
    softmax_topk_forward(int32_t* experts, A* weights, int64_t weights_stride, A* probs, int64_t probs_stride,
                         const A* logits, int64_t logits_stride, int64_t num_tokens, int64_t num_experts, int64_t top_k,
                         bool renormalize) {
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  auto* keys = keys_of_warp<typename Order<A>::Key>(num_experts);
  logits += token * logits_stride;
  probs += token * probs_stride;
  experts += token * top_k;
  weights += token * weights_stride;

  A most = -INFINITY, sum = 0, chosen = 0;
  for (int64_t e = lane; e < num_experts; e += kWarp) {
    keys[e] = Order<A>::key(logits[e]);
    most = logits[e] > most || logits[e] != logits[e] ? logits[e] : most;
  }
  most = warp_max(most);
  for (int64_t e = lane; e < num_experts; e += kWarp) sum += exp(logits[e] - most);
  sum = warp_sum(sum);
  for (int64_t e = lane; e < num_experts; e += kWarp) probs[e] = exp(logits[e] - most) / sum;
  best_experts(keys, num_experts, top_k, lane, [&](int64_t j, int expert, auto key) {
    const A p = exp(Order<A>::value(key) - most) / sum;
    chosen += p;
    if (j % kWarp != lane) return;
    experts[j] = expert;
    weights[j] = p;
  });
  if (!renormalize) return;
  for (int64_t j = lane; j < top_k; j += kWarp) weights[j] /= chosen;
}

// With s the chosen probabilities' sum, w = p / s:  g_j = (dw_j - sum dw w) / s for chosen j, else 0;
// with w = p:  g_j = dw_j.  dlogits = p (g - sum p g).
template <class A>
__global__ void __launch_bounds__(kThreads)
    softmax_topk_backward(A* dlogits, int64_t dlogits_stride, const A* dweights, int64_t dweights_stride,
                          const int32_t* experts, const A* weights, int64_t weights_stride, const A* probs,
                          int64_t probs_stride, int64_t num_tokens, int64_t num_experts, int64_t top_k,
                          bool renormalize, Fault* fault) {
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  dlogits += token * dlogits_stride;
  dweights += token * dweights_stride;
  experts += token * top_k;
  weights += token * weights_stride;
  probs += token * probs_stride;
  const auto expert = [&](int64_t j) { return checked(fault, FaultKind::expert, experts[j], num_experts); };

  A chosen = 0, mean = 0, inner = 0;
  for (int64_t j = lane; j < top_k; j += kWarp) {
    chosen += probs[expert(j)];
    mean += dweights[j] * weights[j];
  }
  const A inverse = renormalize ? 1 / warp_sum(chosen) : 1;
  mean = renormalize ? warp_sum(mean) : 0;
  for (int64_t j = lane; j < top_k; j += kWarp) inner += probs[expert(j)] * ((dweights[j] - mean) * inverse);
  inner = warp_sum(inner);
  for (int64_t e = lane; e < num_experts; e += kWarp) dlogits[e] = -probs[e] * inner;
  __syncwarp();
  for (int64_t j = lane; j < top_k; j += kWarp) {
    dlogits[expert(j)] = probs[expert(j)] * ((dweights[j] - mean) * inverse - inner);
  }
}

// dlogits += 2 coef grad_scale lse softmax(logits)
template <class A>
__global__ void __launch_bounds__(kThreads)
    router_z_backward(A* dlogits, int64_t dlogits_stride, const A* logits, int64_t logits_stride,
                      const double* grad_scale, double coef, int64_t num_tokens, int64_t num_experts) {
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  dlogits += token * dlogits_stride;
  logits += token * logits_stride;
  A most = -INFINITY, sum = 0;
  for (int64_t e = lane; e < num_experts; e += kWarp) {
    most = logits[e] > most || logits[e] != logits[e] ? logits[e] : most;
  }
  most = warp_max(most);
  for (int64_t e = lane; e < num_experts; e += kWarp) sum += exp(logits[e] - most);
  sum = warp_sum(sum);
  const A factor = static_cast<A>(2 * coef * grad_scale[0]) * (most + log(sum)) / sum;
  // Unrolled, it spills registers in f64.
#pragma unroll 1
  for (int64_t e = lane; e < num_experts; e += kWarp) dlogits[e] += factor * exp(logits[e] - most);
}

// --- gates without parameters -----------------------------------------------------------------------------------

__device__ __forceinline__ int64_t global_token(const int64_t* sample_ids, int64_t seq_len, int64_t token) {
  return sample_ids[token / seq_len] * seq_len + token % seq_len;
}

__global__ void __launch_bounds__(kThreads) exact_gate_experts(int32_t* experts, const int64_t* sample_ids,
                                                               int64_t seq_len, int64_t num_tokens, GateSpec gate) {
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (token >= num_tokens) return;
  gates::exact_experts(gate, global_token(sample_ids, seq_len, token), experts + token * gate.top_k);
}

__global__ void __launch_bounds__(kThreads) scored_gate_experts(int32_t* experts, const int64_t* sample_ids,
                                                                int64_t seq_len, int64_t num_tokens, GateSpec gate) {
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  auto* keys = keys_of_warp<uint64_t>(gate.num_experts);
  const int64_t id = global_token(sample_ids, seq_len, token);
  for (int64_t e = lane; e < gate.num_experts; e += kWarp) keys[e] = Order<double>::key(gates::score(gate, id, e));
  best_experts(keys, gate.num_experts, gate.top_k, lane, [&](int64_t j, int expert, uint64_t /*key*/) {
    if (lane == 0) experts[token * gate.top_k + j] = expert;
  });
}

template <class A>
__global__ void __launch_bounds__(kThreads) gate_weights(A* weights, int64_t stride, const int64_t* sample_ids,
                                                         int64_t seq_len, int64_t num_tokens, GateSpec gate) {
  const int64_t token = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (token >= num_tokens) return;
  gates::weights(gate, global_token(sample_ids, seq_len, token),
                 [&](int64_t j, double weight) { weights[token * stride + j] = static_cast<A>(weight); });
}

}  // namespace

void CudaBackend::execute(const SoftmaxTopKForward& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.logits.dtype(), [&]<class A>(A) {
    const int64_t num_tokens = op.logits.dim(0), num_experts = op.logits.dim(1);
    const WarpPerToken shape(num_tokens, static_cast<size_t>(num_experts) * sizeof(A));
    launch(SoftmaxTopKForward::name, softmax_topk_forward<A>, shape.grid, shape.threads, shape.shared_bytes,
           device_.stream(), op.experts.data<int32_t>(), op.weights.data<A>(), op.weights.stride(), op.probs.data<A>(),
           op.probs.stride(), op.logits.data<A>(), op.logits.stride(), num_tokens, num_experts, op.experts.dim(1),
           op.renormalize);
  });
}

void CudaBackend::execute(const SoftmaxTopKBackward& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.dlogits.dtype(), [&]<class A>(A) {
    const int64_t num_tokens = op.dlogits.dim(0);
    const WarpPerToken shape(num_tokens, 0);
    launch(SoftmaxTopKBackward::name, softmax_topk_backward<A>, shape.grid, shape.threads, 0, device_.stream(),
           op.dlogits.data<A>(), op.dlogits.stride(), op.dweights.data<A>(), op.dweights.stride(),
           op.experts.data<int32_t>(), op.weights.data<A>(), op.weights.stride(), op.probs.data<A>(), op.probs.stride(),
           num_tokens, op.dlogits.dim(1), op.experts.dim(1), op.renormalize, device_.fault());
  });
}

void CudaBackend::execute(const RouterZBackward& op, const Tensor& /*scratch*/) {
  const int64_t num_tokens = op.dlogits.dim(0);
  if (num_tokens == 0) return;
  dispatch_accumulator(op.dlogits.dtype(), [&]<class A>(A) {
    const WarpPerToken shape(num_tokens, 0);
    launch(RouterZBackward::name, router_z_backward<A>, shape.grid, shape.threads, 0, device_.stream(),
           op.dlogits.data<A>(), op.dlogits.stride(), op.logits.data<A>(), op.logits.stride(),
           op.grad_scale.data<double>(), op.coef, num_tokens, op.dlogits.dim(1));
  });
}

void CudaBackend::execute(const ForcedGate& op, const Tensor& /*scratch*/) {
  const int64_t num_tokens = op.experts.dim(0);
  auto* experts = op.experts.data<int32_t>();
  const auto* sample_ids = op.sample_ids.data<int64_t>();
  const dim3 thread_each = blocks(ceil_div(num_tokens, kThreads));
  if (op.gate.scored()) {
    const WarpPerToken shape(num_tokens, static_cast<size_t>(op.gate.num_experts) * sizeof(uint64_t));
    launch(ForcedGate::name, scored_gate_experts, shape.grid, shape.threads, shape.shared_bytes, device_.stream(),
           experts, sample_ids, op.seq_len, num_tokens, op.gate);
  } else {
    launch(ForcedGate::name, exact_gate_experts, thread_each, kThreads, 0, device_.stream(), experts, sample_ids,
           op.seq_len, num_tokens, op.gate);
  }
  dispatch_accumulator(op.weights.dtype(), [&]<class A>(A) {
    launch(ForcedGate::name, gate_weights<A>, thread_each, kThreads, 0, device_.stream(), op.weights.data<A>(),
           op.weights.stride(), sample_ids, op.seq_len, num_tokens, op.gate);
  });
}

}  // namespace sluice::cuda
