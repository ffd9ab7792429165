// Runs attention's plain kernels with a mask. `scratch` of backward holds an accumulator for each row and head.
// Included by .cu files only.
#pragma once

#include "device/cuda/attention_kernels.h"
#include "device/cuda/device.h"
#include "ops/attention.h"

namespace sluice::cuda {

template <class T>
HeadRows<T> head_rows(const Tensor& t) {
  return {static_cast<T*>(t.raw()), t.stride(), static_cast<int>(t.dim(2)), in_pieces(t)};
}

template <class A, class Mask, class Op>
AttentionShape<A, Mask> shape_of(const Op& op, const Mask& mask) {
  return {op.spec.seq_len, op.q.dim(1), op.q.dim(1) / op.k.dim(1), op.spec.past, static_cast<A>(op.spec.scale), mask};
}

// Calls f with the number of spans that heads of `dim` columns have, as std::integral_constant<int, N>.
template <class F>
void with_spans(int64_t dim, F&& f) {
  constexpr int64_t kMostDim = 4 * kSpan;
  require(dim <= kMostDim, "attention on CUDA: heads of {} columns, more than {}", dim, kMostDim);
  if (dim <= kSpan) {
    f(std::integral_constant<int, 1>{});
  } else if (dim <= 2 * kSpan) {
    f(std::integral_constant<int, 2>{});
  } else {
    f(std::integral_constant<int, 4>{});
  }
}

template <class Mask>
void plain_attention(Device& device, const AttentionForward& op, const Tensor& /*scratch*/, const Mask& mask) {
  dispatch_float(op.q.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t seq_len = op.spec.seq_len, heads = op.q.dim(1), dim = op.q.dim(2), v_dim = op.v.dim(2);
    with_spans(dim > v_dim ? dim : v_dim, [&](auto spans) {
      using Tile = QueryTiling<A, decltype(spans)::value>;
      launch(AttentionForward::name, attention_forward<T, Tile::kSpans, Mask>,
             blocks(op.q.dim(0) / seq_len * heads * ceil_div(seq_len, Tile::kTileRows)), kAttentionThreads,
             static_cast<size_t>(forward_shared<Tile>(dim, v_dim)) * sizeof(A), device.stream(), head_rows<T>(op.o),
             op.lse.data<A>(), head_rows<const T>(op.q), head_rows<const T>(op.k), head_rows<const T>(op.v),
             shape_of<A>(op, mask));
    });
  });
}

template <class Mask>
void plain_attention(Device& device, const AttentionBackward& op, const Tensor& scratch, const Mask& mask) {
  dispatch_float(op.q.dtype(), [&]<class T>(T) {
    using A = accumulator_t<T>;
    const int64_t seq_len = op.spec.seq_len, sequences = op.q.dim(0) / seq_len, heads = op.q.dim(1);
    const int64_t dim = op.q.dim(2), v_dim = op.v.dim(2);
    const auto q = head_rows<const T>(op.q), k = head_rows<const T>(op.k), v = head_rows<const T>(op.v);
    const auto d_o = head_rows<const T>(op.d_o);
    A* delta = static_cast<A*>(scratch.raw());
    launch(AttentionBackward::name, attention_delta<T>,
           blocks(ceil_div(op.q.dim(0) * heads * kWarp, kAttentionThreads)), kAttentionThreads, 0, device.stream(),
           delta, d_o, head_rows<const T>(op.o), op.q.dim(0), heads);
    with_spans(dim > v_dim ? dim : v_dim, [&](auto spans) {
      using Queries = QueryTiling<A, decltype(spans)::value>;
      using Keys = KeyTiling<A, decltype(spans)::value>;
      launch(AttentionBackward::name, attention_dq<T, Queries::kSpans, Mask>,
             blocks(sequences * heads * ceil_div(seq_len, Queries::kTileRows)), kAttentionThreads,
             static_cast<size_t>(backward_shared<Queries>(dim, v_dim)) * sizeof(A), device.stream(),
             head_rows<T>(op.dq), d_o, op.lse.data<A>(), delta, q, k, v, shape_of<A>(op, mask));
      launch(AttentionBackward::name, attention_dkv<T, Keys::kSpans, Mask>,
             blocks(sequences * op.k.dim(1) * ceil_div(seq_len, Keys::kTileRows)), kAttentionThreads,
             static_cast<size_t>(backward_shared<Keys>(dim, v_dim)) * sizeof(A), device.stream(), head_rows<T>(op.dk),
             head_rows<T>(op.dv), d_o, op.lse.data<A>(), delta, q, k, v, shape_of<A>(op, mask));
    });
  });
}

}  // namespace sluice::cuda
