#include "device/cuda/cuda_backend.h"
#include "device/cuda/topk.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = kRouterThreads;
constexpr double kTiny = 1e-20;

// The sum of a group's two best choices.
template <class A>
__device__ __forceinline__ A group_score(const A* scores, const A* bias, int64_t first, int64_t size) {
  A best = -INFINITY, second = -INFINITY;
  for (int64_t e = first; e < first + size; ++e) {
    const A choice = scores[e] + bias[e];
    if (choice > best) {
      second = best;
      best = choice;
    } else if (choice > second) {
      second = choice;
    }
  }
  return size > 1 ? best + second : best;
}

// Shared memory of a warp: keys of E experts, then of G groups. A group that is out has the key 0 in the end, as have
// its experts.
template <class A>
__global__ void __launch_bounds__(kThreads)
    sigmoid_topk_forward(int32_t* experts, A* weights, int64_t weights_stride, A* scores, int64_t scores_stride,
                         const A* logits, int64_t logits_stride, const A* bias, int64_t num_tokens, int64_t num_experts,
                         int64_t top_k, SigmoidRouterSpec spec) {
  using Key = typename Order<A>::Key;
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  Key* keys = keys_of_warp<Key>(num_experts + spec.groups);
  Key* groups = keys + num_experts;
  scores += token * scores_stride;
  logits += token * logits_stride;
  weights += token * weights_stride;
  experts += token * top_k;

  for (int64_t e = lane; e < num_experts; e += kWarp) scores[e] = 1 / (1 + exp(-logits[e]));
  __syncwarp();
  const int64_t size = num_experts / spec.groups;
  for (int64_t g = lane; g < spec.groups; g += kWarp)
    groups[g] = Order<A>::key(group_score(scores, bias, g * size, size));
  // best_experts uses up the keys of those it takes: what is left over marks the groups that are out.
  best_experts(groups, spec.groups, spec.top_groups, lane, [](int64_t, int, Key) {});
  __syncwarp();
  for (int64_t e = lane; e < num_experts; e += kWarp) {
    keys[e] = groups[e / size] == 0 ? Order<A>::key(scores[e] + bias[e]) : 0;
  }
  A sum = 0;
  best_experts(keys, num_experts, top_k, lane, [&](int64_t j, int expert, Key) {
    sum += scores[expert];
    if (j % kWarp != lane) return;
    experts[j] = expert;
    weights[j] = scores[expert];
  });
  const A factor = static_cast<A>(spec.scale) / (spec.normalize ? sum + static_cast<A>(kTiny) : A{1});
  for (int64_t j = lane; j < top_k; j += kWarp) weights[j] *= factor;
}

template <class A>
__global__ void __launch_bounds__(kThreads)
    sigmoid_topk_backward(A* dlogits, int64_t dlogits_stride, const A* dweights, int64_t dweights_stride,
                          const int32_t* experts, const A* weights, int64_t weights_stride, const A* scores,
                          int64_t scores_stride, int64_t num_tokens, int64_t num_experts, int64_t top_k,
                          SigmoidRouterSpec spec, Fault* fault) {
  const int64_t token = token_of_warp();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (token >= num_tokens) return;
  dlogits += token * dlogits_stride;
  dweights += token * dweights_stride;
  weights += token * weights_stride;
  scores += token * scores_stride;
  experts += token * top_k;
  const auto expert = [&](int64_t j) { return checked(fault, FaultKind::expert, experts[j], num_experts); };

  A sum = 0, inner = 0;
  for (int64_t j = lane; j < top_k; j += kWarp) {
    sum += scores[expert(j)];
    inner += dweights[j] * weights[j];
  }
  sum = warp_sum(sum) + static_cast<A>(kTiny);
  inner = warp_sum(inner);
  for (int64_t e = lane; e < num_experts; e += kWarp) dlogits[e] = 0;
  __syncwarp();
  for (int64_t j = lane; j < top_k; j += kWarp) {
    const int64_t e = expert(j);
    const A dw = static_cast<A>(spec.scale) * dweights[j];
    dlogits[e] = (spec.normalize ? (dw - inner) / sum : dw) * scores[e] * (1 - scores[e]);
  }
}

}  // namespace

void CudaBackend::execute(const SigmoidTopKForward& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.logits.dtype(), [&]<class A>(A) {
    const int64_t num_tokens = op.logits.dim(0), num_experts = op.logits.dim(1);
    const WarpPerToken shape(num_tokens, static_cast<size_t>(num_experts + op.spec.groups) * sizeof(A));
    launch(SigmoidTopKForward::name, sigmoid_topk_forward<A>, shape.grid, shape.threads, shape.shared_bytes,
           device_.stream(), op.experts.data<int32_t>(), op.weights.data<A>(), op.weights.stride(), op.scores.data<A>(),
           op.scores.stride(), op.logits.data<A>(), op.logits.stride(), op.bias.data<A>(), num_tokens, num_experts,
           op.experts.dim(1), op.spec);
  });
}

void CudaBackend::execute(const SigmoidTopKBackward& op, const Tensor& /*scratch*/) {
  dispatch_accumulator(op.dlogits.dtype(), [&]<class A>(A) {
    const int64_t num_tokens = op.dlogits.dim(0);
    const WarpPerToken shape(num_tokens, 0);
    launch(SigmoidTopKBackward::name, sigmoid_topk_backward<A>, shape.grid, shape.threads, 0, device_.stream(),
           op.dlogits.data<A>(), op.dlogits.stride(), op.dweights.data<A>(), op.dweights.stride(),
           op.experts.data<int32_t>(), op.weights.data<A>(), op.weights.stride(), op.scores.data<A>(),
           op.scores.stride(), num_tokens, op.dlogits.dim(1), op.experts.dim(1), op.spec, device_.fault());
  });
}

}  // namespace sluice::cuda
