#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;  // at most

// Rows of a tensor [T, n, width] with a stride between rows, and the columns of one head.
template <class T>
struct Heads {
  T* data;
  int64_t stride;
  int64_t width;
  __device__ T* at(int64_t row, int64_t head) const { return data + row * stride + head * width; }
};
template <class T>
Heads<T> heads(const Tensor& t) {
  return {t.data<T>(), t.stride(), t.dim(2)};
}

// The pair at column 2 i, turned by angle i of a row of cos_sin.
template <class A>
struct Pair {
  A first, second;
};
template <class A>
__device__ __forceinline__ Pair<A> turn(A first, A second, const A* cos_sin, int64_t i, int64_t half, bool inverse) {
  const A c = cos_sin[i], s = inverse ? -cos_sin[half + i] : cos_sin[half + i];
  return {first * c - second * s, second * c + first * s};
}

template <class T>
__device__ __forceinline__ void turn_in_place(T* x, const accumulator_t<T>* cos_sin, int64_t i, int64_t half,
                                              bool inverse) {
  const auto turned = turn(load(x[2 * i]), load(x[2 * i + 1]), cos_sin, i, half, inverse);
  x[2 * i] = store<T>(turned.first);
  x[2 * i + 1] = store<T>(turned.second);
}

// Columns [0, width) from one place to another, N at a time.
template <class T, int N>
__device__ __forceinline__ void copy_columns(T* to, const T* from, int64_t piece) {
  store_piece(to + piece * N, load_piece<T, N>(from + piece * N));
}

struct Sizes {
  int64_t rows, heads, nope, rotary, value, positions;
};

// A block makes one row: its work items are, head by head, the pairs of q and k and the pieces of k_nope and v.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    mla_heads(Heads<T> q, Heads<T> k, Heads<T> v, Heads<const T> kv, const T* k_pe, int64_t k_pe_stride,
              const accumulator_t<T>* cos_sin, Sizes s) {
  const int64_t row = blockIdx.x, half = s.rotary / 2;
  const int64_t nope_pieces = s.nope / N, per_head = half + nope_pieces + s.value / N;
  const accumulator_t<T>* angles = cos_sin + row % s.positions * s.rotary;
  const T* shared_key = k_pe + row * k_pe_stride;
  for (int64_t item = threadIdx.x; item < s.heads * per_head; item += blockDim.x) {
    const int64_t head = item / per_head, i = item % per_head;
    const T* from = kv.at(row, head);
    if (i < half) {
      turn_in_place(q.at(row, head) + s.nope, angles, i, half, false);
      T* to = k.at(row, head) + s.nope;
      const auto turned = turn(load(shared_key[2 * i]), load(shared_key[2 * i + 1]), angles, i, half, false);
      to[2 * i] = store<T>(turned.first);
      to[2 * i + 1] = store<T>(turned.second);
    } else if (i < half + nope_pieces) {
      copy_columns<T, N>(k.at(row, head), from, i - half);
    } else {
      copy_columns<T, N>(v.at(row, head), from + s.nope, i - half - nope_pieces);
    }
  }
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    mla_heads_backward(Heads<T> dq, Heads<T> dkv, T* dk_pe, int64_t dk_pe_stride, Heads<const T> dk, Heads<const T> dv,
                       const accumulator_t<T>* cos_sin, Sizes s) {
  using A = accumulator_t<T>;
  const int64_t row = blockIdx.x, half = s.rotary / 2;
  const int64_t nope_pieces = s.nope / N, per_head = half + nope_pieces + s.value / N;
  const A* angles = cos_sin + row % s.positions * s.rotary;
  for (int64_t item = threadIdx.x; item < s.heads * per_head; item += blockDim.x) {
    const int64_t head = item / per_head, i = item % per_head;
    T* to = dkv.at(row, head);
    if (i < half) {
      turn_in_place(dq.at(row, head) + s.nope, angles, i, half, true);
    } else if (i < half + nope_pieces) {
      copy_columns<T, N>(to, dk.at(row, head), i - half);
    } else {
      copy_columns<T, N>(to + s.nope, dv.at(row, head), i - half - nope_pieces);
    }
  }
  for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
    A first = 0, second = 0;
    for (int64_t head = 0; head < s.heads; ++head) {
      const T* from = dk.at(row, head) + s.nope;
      first += load(from[2 * i]);
      second += load(from[2 * i + 1]);
    }
    const auto turned = turn(first, second, angles, i, half, true);
    dk_pe[row * dk_pe_stride + 2 * i] = store<T>(turned.first);
    dk_pe[row * dk_pe_stride + 2 * i + 1] = store<T>(turned.second);
  }
}

// Whether the parts that are copied are made of 16-byte pieces in every row and head.
bool copied_in_pieces(const Sizes& s, const Tensor& k, const Tensor& v, const Tensor& kv) {
  const auto size = static_cast<int64_t>(size_of(k.dtype()));
  return in_pieces(k) && in_pieces(v) && in_pieces(kv) && s.nope * size % 16 == 0;
}

int threads_for(const Sizes& s, int n) {
  return row_threads(s.heads * (s.rotary / 2 + (s.nope + s.value) / n), kThreads);
}

}  // namespace

void CudaBackend::execute(const MlaHeads& op, const Tensor& /*scratch*/) {
  const int64_t rotary = op.k_pe.dim(1);
  const Sizes s{op.q.dim(0), op.q.dim(1), op.q.dim(2) - rotary, rotary, op.v.dim(2), op.cos_sin.dim(0)};
  dispatch_float(op.q.dtype(), [&]<class T>(T) {
    with_pieces<T>(copied_in_pieces(s, op.k, op.v, op.kv), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const Heads<const T> kv{op.kv.data<T>(), op.kv.stride(), op.kv.dim(2)};
      launch(MlaHeads::name, mla_heads<T, N>, blocks(s.rows), threads_for(s, N), 0, device_.stream(), heads<T>(op.q),
             heads<T>(op.k), heads<T>(op.v), kv, op.k_pe.data<T>(), op.k_pe.stride(),
             op.cos_sin.data<accumulator_t<T>>(), s);
    });
  });
}

void CudaBackend::execute(const MlaHeadsBackward& op, const Tensor& /*scratch*/) {
  const int64_t rotary = op.dk_pe.dim(1);
  const Sizes s{op.dq.dim(0), op.dq.dim(1), op.dq.dim(2) - rotary, rotary, op.dv.dim(2), op.cos_sin.dim(0)};
  dispatch_float(op.dq.dtype(), [&]<class T>(T) {
    with_pieces<T>(copied_in_pieces(s, op.dk, op.dv, op.dkv), [&](auto n) {
      constexpr int N = decltype(n)::value;
      const Heads<const T> dk{op.dk.data<T>(), op.dk.stride(), op.dk.dim(2)};
      const Heads<const T> dv{op.dv.data<T>(), op.dv.stride(), op.dv.dim(2)};
      launch(MlaHeadsBackward::name, mla_heads_backward<T, N>, blocks(s.rows), threads_for(s, N), 0, device_.stream(),
             heads<T>(op.dq), heads<T>(op.dkv), op.dk_pe.data<T>(), op.dk_pe.stride(), dk, dv,
             op.cos_sin.data<accumulator_t<T>>(), s);
    });
  });
}

}  // namespace sluice::cuda
