#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;

// Angles are made in f64: at position 1e5 an f32 angle would be off by a hundredth.
template <class A>
__global__ void __launch_bounds__(kThreads)
    rope_table(A* cos_sin, int64_t stride, int64_t positions, int64_t dim, double theta, RopeScaling scaling) {
  const int64_t half = dim / 2;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= positions * half) return;
  const int64_t s = item / half, i = item % half;
  const double plain = pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
  constexpr double kTurn = 6.283185307179586;
  const double x = scaling.original > 0 ? scaling.original * plain / kTurn : static_cast<double>(i);
  const double at = (x - scaling.start) / (scaling.end - scaling.start);
  const double slow = at < 0 ? 0 : at > 1 ? 1 : at;
  const double angle = static_cast<double>(s) * plain * ((1 - slow) + slow / scaling.factor);
  cos_sin[s * stride + i] = static_cast<A>(cos(angle) * scaling.amplitude);
  cos_sin[s * stride + half + i] = static_cast<A>(sin(angle) * scaling.amplitude);
}

// A thread turns N neighbouring pairs (x_i, x_{i + R/2}) of one head.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    rope(T* x, int64_t stride, const accumulator_t<T>* cos_sin, int64_t positions, int64_t rows, int64_t heads,
         int64_t dim, bool inverse) {
  using A = accumulator_t<T>;
  const int64_t half = dim / 2, per_head = half / N, items = rows * heads * per_head;
  for (int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x; item < items;
       item += int64_t{gridDim.x} * kThreads) {
    const int64_t i = item % per_head * N, head = item / per_head % heads, row = item / per_head / heads;
    T* first = x + row * stride + head * dim + i;
    const A* cosines = cos_sin + row % positions * dim + i;
    auto a = load_piece<T, N>(first), b = load_piece<T, N>(first + half);
    for (int j = 0; j < N; ++j) {
      const A c = cosines[j], s = inverse ? -cosines[half + j] : cosines[half + j];
      const A u = load(a.at[j]), v = load(b.at[j]);
      a.at[j] = store<T>(u * c - v * s);
      b.at[j] = store<T>(v * c + u * s);
    }
    store_piece(first, a);
    store_piece(first + half, b);
  }
}

}  // namespace

void CudaBackend::execute(const RopeTable& op, const Tensor& /*scratch*/) {
  const auto run = [&]<class A>(A) {
    const int64_t positions = op.cos_sin.dim(0), dim = op.cos_sin.dim(1);
    launch(RopeTable::name, rope_table<A>, blocks(ceil_div(positions * dim / 2, kThreads)), kThreads, 0,
           device_.stream(), op.cos_sin.data<A>(), op.cos_sin.stride(), positions, dim, op.theta, op.scaling);
  };
  op.cos_sin.dtype() == DType::f64 ? run(double{}) : run(float{});
}

void CudaBackend::execute(const Rope& op, const Tensor& /*scratch*/) {
  dispatch_float(op.x.dtype(), [&]<class T>(T) {
    const int64_t rows = op.x.dim(0), heads = op.x.dim(1), dim = op.x.dim(2);
    const bool pieces = in_pieces(op.x) && dim / 2 * static_cast<int64_t>(sizeof(T)) % 16 == 0;
    with_pieces<T>(pieces, [&](auto n) {
      constexpr int N = decltype(n)::value;
      launch(Rope::name, rope<T, N>, blocks_for(rows * heads * (dim / 2 / N), kThreads, device_.num_sms()), kThreads, 0,
             device_.stream(), op.x.data<T>(), op.x.stride(), op.cos_sin.data<accumulator_t<T>>(), op.cos_sin.dim(0),
             rows, heads, dim, op.inverse);
    });
  });
}

}  // namespace sluice::cuda
