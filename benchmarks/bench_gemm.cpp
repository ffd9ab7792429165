// The engine's own matrix product beside OpenBLAS, one thread, tile by tile in turn: why the CPU backend does not call
// a BLAS. Times are the best of many runs, on random data.
//   bench_gemm
#include <cblas.h>
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/clock.h"
#include "base/philox.h"
#include "device/cpu/gemm_kernel.h"
#include "device/cpu/peak.h"
#include "device/cpu/scratch.h"

namespace sluice {
namespace {

struct Shape3 {
  int64_t m;
  int64_t n;
  int64_t k;
  bool trans_a;
  bool trans_b;
};

std::vector<float> random_floats(int64_t count, uint64_t key) {
  const Philox random(key);
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = random.uniform_f32(i) - 0.5F;
  return values;
}

void compare(const Shape3& s, double peak) {
  const auto a = random_floats(s.m * s.k, 1);
  const auto b = random_floats(s.n * s.k, 2);
  std::vector<float> c(static_cast<size_t>(s.m * s.n));
  std::vector<float> workspace(cpu::gemm_workspace({.m = s.m, .n = s.n, .k = s.k}) / sizeof(float) + 16);
  float* aligned = workspace.data() + (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64 / sizeof(float);
  const cpu::GemmTile tile{.m = s.m,
                           .n = s.n,
                           .k = s.k,
                           .a = {a.data(), DType::f32, s.trans_a ? s.m : s.k, s.trans_a},
                           .b = {b.data(), DType::f32, s.trans_b ? s.k : s.n, s.trans_b},
                           .c = {c.data(), DType::f32, s.n}};
  double own = 1e9;
  double blas = 1e9;
  constexpr int kTries = 30;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    Stopwatch watch;
    cpu::gemm_tile(tile, aligned);
    own = std::min(own, watch.seconds());
    watch.restart();
    cblas_sgemm(CblasRowMajor, s.trans_a ? CblasTrans : CblasNoTrans, s.trans_b ? CblasTrans : CblasNoTrans,
                static_cast<int>(s.m), static_cast<int>(s.n), static_cast<int>(s.k), 1, a.data(),
                static_cast<int>(tile.a.stride), b.data(), static_cast<int>(tile.b.stride), 0, c.data(),
                static_cast<int>(tile.c.stride));
    blas = std::min(blas, watch.seconds());
  }
  const double gflop = 2e-9 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k);
  fmt::print("{:>6}{:>6}{:>6}  {}{}{:>10.1f}{:>6.0f}%{:>12.1f}{:>6.0f}%\n", s.m, s.n, s.k, s.trans_a ? "a^T " : "a   ",
             s.trans_b ? "b^T" : "b  ", gflop / own, 100 * gflop / own / peak, gflop / blas, 100 * gflop / blas / peak);
}

}  // namespace
}  // namespace sluice

int main() {
  using namespace sluice;
  Pool pool(1);
  const double peak = cpu::measure_fma_peak(pool);
  fmt::print("one thread, {}: {:.1f} GFLOP/s of f32 multiply-adds\n{:>6}{:>6}{:>6}  {:<7}{:>10}{:>7}{:>12}{:>7}\n",
             cpu::instruction_set(), peak, "M", "N", "K", "", "own", "peak", "OpenBLAS", "peak");
  constexpr std::array kShapes{Shape3{512, 384, 512, false, true},  Shape3{1024, 512, 512, false, true},
                               Shape3{1024, 512, 256, false, true}, Shape3{1024, 512, 512, false, false},
                               Shape3{512, 512, 1024, true, false}, Shape3{384, 512, 4096, true, false},
                               Shape3{64, 512, 256, false, true},   Shape3{128, 128, 64, false, true}};
  for (const auto& shape : kShapes) compare(shape, peak);
  return 0;
}
