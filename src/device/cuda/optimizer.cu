#include "device/cuda/cuda_backend.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;

// N neighbouring elements in pieces of at most 16 bytes.
template <class A, class T, int N>
__device__ __forceinline__ void load_all(A (&to)[N], const T* from) {
  constexpr int kEach = N < 16 / static_cast<int>(sizeof(T)) ? N : 16 / static_cast<int>(sizeof(T));
  for (int i = 0; i < N; i += kEach) {
    const auto piece = load_piece<T, kEach>(from + i);
    for (int j = 0; j < kEach; ++j) to[i + j] = static_cast<A>(load(piece.at[j]));
  }
}
template <class A, class T, int N>
__device__ __forceinline__ void store_all(T* to, const A (&from)[N]) {
  constexpr int kEach = N < 16 / static_cast<int>(sizeof(T)) ? N : 16 / static_cast<int>(sizeof(T));
  for (int i = 0; i < N; i += kEach) {
    Piece<T, kEach> piece;
    for (int j = 0; j < kEach; ++j) piece.at[j] = store<T>(static_cast<accumulator_t<T>>(from[i + j]));
    store_piece(to + i, piece);
  }
}

struct Constants {
  double beta1, beta2, eps, lr_scale;
  double coupled, decoupled;  // scales of the decay, one of them 0
  bool stochastic_rounding;
  uint64_t key;
  int64_t first;  // a multiple of 8 where N is 8
};

// See ops/optimizer.h. One block a multiprocessor suffices: told so, the compiler spills no register.
template <class W, class M, int N>
__global__ void __launch_bounds__(kThreads, 1) adamw(W* w, float* master, M* m, M* v, const accumulator_t<W>* g,
                                                     const double* state, Constants constants, int64_t count) {
  using A = std::conditional_t<sizeof(M) == 8, double, accumulator_t<W>>;
  const A beta1 = static_cast<A>(constants.beta1), new1 = static_cast<A>(1 - constants.beta1);
  const A beta2 = static_cast<A>(constants.beta2), new2 = static_cast<A>(1 - constants.beta2);
  const A eps = static_cast<A>(constants.eps), clip = static_cast<A>(state[kClipFactor]);
  const double lr = state[kLearningRate] * constants.lr_scale;
  const A rate = static_cast<A>(lr / state[kBiasCorrection1]);
  const A inverse_correction2 = static_cast<A>(1 / state[kBiasCorrection2]);
  const A coupled = static_cast<A>(state[kWeightDecay] * constants.coupled);
  const A kept = static_cast<A>(1 - lr * state[kWeightDecay] * constants.decoupled);
  const auto step = static_cast<uint64_t>(state[kStep]);

  const int64_t stride = int64_t{gridDim.x} * kThreads * N;
  for (int64_t at = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * N; at < count; at += stride) {
    A gradient[N], first[N], second[N], weight[N];
    load_all(gradient, g + at);
    load_all(first, m + at);
    load_all(second, v + at);
    if (master != nullptr) {
      load_all(weight, master + at);
    } else {
      load_all(weight, w + at);
    }
    for (int j = 0; j < N; ++j) {
      const A scaled = gradient[j] * clip + coupled * weight[j];
      first[j] = beta1 * first[j] + new1 * scaled;
      second[j] = beta2 * second[j] + new2 * scaled * scaled;
      weight[j] = weight[j] * kept - rate * first[j] / (sqrt(second[j] * inverse_correction2) + eps);
    }
    store_all(m + at, first);
    store_all(v + at, second);
    if (master != nullptr) store_all(master + at, weight);
    if constexpr (sizeof(W) == 2) {
      if (constants.stochastic_rounding) {
        const int64_t place = constants.first + at;
        const Philox::Block bits = rounding_bits(constants.key, step, place / 8);
        const int offset = N == 8 ? 0 : static_cast<int>(place % 8);
        Piece<W, N> rounded;
        for (int j = 0; j < N; ++j) {
          rounded.at[j] = round_stochastically(static_cast<float>(weight[j]), bits, offset + j);
        }
        store_piece(w + at, rounded);
        continue;
      }
    }
    store_all(w + at, weight);
  }
}

__global__ void clip_factor(double* state, const double* sum_squares, double max_norm) {
  const double factor = max_norm / (sqrt(sum_squares[0]) + 1e-6);
  state[kClipFactor] = factor < 1 ? factor : 1;
}

}  // namespace

void CudaBackend::execute(const AdamW& op, const Tensor& /*scratch*/) {
  const Constants constants{.beta1 = op.beta1,
                            .beta2 = op.beta2,
                            .eps = op.eps,
                            .lr_scale = op.lr_scale,
                            .coupled = op.coupled_decay ? op.decay_scale : 0,
                            .decoupled = op.coupled_decay ? 0 : op.decay_scale,
                            .stochastic_rounding = op.stochastic_rounding,
                            .key = op.key,
                            .first = op.first};
  const bool pieces = in_pieces(op.w) && in_pieces(op.master) && in_pieces(op.m) && in_pieces(op.v) &&
                      in_pieces(op.g) && op.first % 8 == 0;
  dispatch_float(op.w.dtype(), [&]<class W>(W) {
    dispatch_float(op.m.dtype(), [&]<class M>(M) {
      with_pieces<W>(pieces, [&](auto n) {
        constexpr int N = decltype(n)::value;
        launch(AdamW::name, adamw<W, M, N>, blocks_for(op.w.dim(0) / N, kThreads, device_.num_sms()), kThreads, 0,
               device_.stream(), op.w.data<W>(), op.master ? op.master.data<float>() : nullptr, op.m.data<M>(),
               op.v.data<M>(), op.g.data<accumulator_t<W>>(), op.state.data<double>(), constants, op.w.dim(0));
      });
    });
  });
}

void CudaBackend::execute(const ClipFactor& op, const Tensor& /*scratch*/) {
  launch(ClipFactor::name, clip_factor, blocks(1), 1, 0, device_.stream(), op.state.data<double>(),
         op.sum_squares.data<double>(), op.max_norm);
}

}  // namespace sluice::cuda
