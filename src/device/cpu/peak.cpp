#include "device/cpu/peak.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <iterator>
#include <numeric>
#include <vector>

#include "base/clock.h"
#include "device/cpu/bf16_dot.h"
#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/peak.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Independent chains: more than latency times throughput of any core, and they fit the registers of AVX2.
constexpr int kChains = 12;

// `rounds` multiply-adds on each chain; the result depends on all of them. Returns the flops done.
HWY_ATTR double fma_loop(int64_t rounds, float* result) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  // x <- 0.5 x + y stays near 2 y: no overflow, no denormals.
  const V factor = hn::Set(d, 0.5F);
  const V term = hn::Set(d, *result);
  V chain[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) chain[i] = hn::Set(d, static_cast<float>(i));
#pragma GCC unroll 1
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kChains; ++i) chain[i] = hn::MulAdd(chain[i], factor, term);
  }
  V sum = hn::Zero(d);
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) sum = hn::Add(sum, chain[i]);
  *result = hn::GetLane(hn::SumOfLanes(d, sum));
  return 2.0 * static_cast<double>(rounds) * kChains * static_cast<double>(hn::Lanes(d));
}

const char* target_name() {
  return hwy::TargetName(HWY_TARGET);
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(fma_loop);
HWY_EXPORT(target_name);

std::string instruction_set() {
  const std::string target = HWY_DYNAMIC_DISPATCH(target_name)();
  return target.starts_with("AVX3") || target.starts_with("AVX10") ? "AVX-512" : target;
}

namespace {

#if defined(__x86_64__)
// As fma_loop: x <- x + 0.5 y + 0.5 y in each chain, of numbers that stay small enough not to overflow.
__attribute__((target("avx512f,avx512bf16"))) double bf16_dot_loop(int64_t rounds, float* result) {
  constexpr int kDotChains = 24;  // of 32 registers
  const __m512bh factor = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5F), _mm512_set1_ps(0.5F));
  const __m512bh term = _mm512_cvtne2ps_pbh(_mm512_set1_ps(*result), _mm512_set1_ps(*result));
  __m512 chain[kDotChains];
#pragma GCC unroll 32
  for (int i = 0; i < kDotChains; ++i) chain[i] = _mm512_set1_ps(static_cast<float>(i));
#pragma GCC unroll 1
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 32
    for (int i = 0; i < kDotChains; ++i) chain[i] = _mm512_dpbf16_ps(chain[i], factor, term);
  }
  __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 32
  for (int i = 0; i < kDotChains; ++i) sum = _mm512_add_ps(sum, chain[i]);
  alignas(64) float lanes[16];
  _mm512_store_ps(lanes, sum);
  *result = std::accumulate(std::begin(lanes), std::end(lanes), 0.0F);
  return 2.0 * static_cast<double>(rounds) * kDotChains * 32;
}
#else
double bf16_dot_loop(int64_t /*rounds*/, float* /*result*/) {
  return 0;
}
#endif

// GFLOP/s of all threads that run `loop` side by side, the best of a few tries.
template <class Loop>
double best_rate(Pool& pool, Loop loop) {
  constexpr int64_t kRounds = 200'000;  // well below a millisecond
  constexpr int kTries = 12;
  constexpr double kMostSeconds = 0.5;
  constexpr int64_t kPerThread = 20;
  const auto threads = static_cast<size_t>(pool.threads());
  std::vector<double> flops(threads * 16);  // a cache line or more apart
  std::vector<float> results(threads * 16, 1.0F);
  double best = 0;
  // A build that is not optimised needs no more than one try.
  const Stopwatch whole;
  for (int attempt = 0; attempt < kTries && (attempt == 0 || whole.seconds() < kMostSeconds); ++attempt) {
    std::fill(flops.begin(), flops.end(), 0.0);
    const Stopwatch watch;
    pool.run(static_cast<int64_t>(threads) * kPerThread, [&](int64_t, int worker) {
      const auto slot = static_cast<size_t>(worker) * 16;
      results[slot] = 1.0F;
      flops[slot] += loop(kRounds, &results[slot]);
    });
    const double seconds = watch.seconds();
    double total = 0;
    for (const double f : flops) total += f;
    best = std::max(best, total / seconds * 1e-9);
  }
  return best;
}

}  // namespace

double measure_fma_peak(Pool& pool) {
  return best_rate(pool, [](int64_t rounds, float* result) { return HWY_DYNAMIC_DISPATCH(fma_loop)(rounds, result); });
}

double measure_bf16_peak(Pool& pool) {
  return has_bf16_dot() ? best_rate(pool, bf16_dot_loop) : 0;
}

double measure_bandwidth(Pool& pool) {
  constexpr int64_t kBlock = int64_t{1} << 20;
  constexpr int64_t kBytes = 128 * kBlock;  // beyond any cache but the largest
  constexpr int kTries = 5;
  std::vector<char> from(kBytes, 1);
  std::vector<char> to(kBytes, 0);
  double best = 0;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    const Stopwatch watch;
    pool.run_ranges(kBytes, kBlock, [&](int64_t begin, int64_t end, int) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
    best = std::max(best, 2.0 * kBytes / watch.seconds() * 1e-9);
  }
  return best;
}

}  // namespace sluice::cpu
#endif
