// Products in which few rows meet a matrix b that comes from memory, as an expert's do. b is read once, where it lies,
// and what comes after it is asked for meanwhile: time goes by the larger of multiply-adds and memory, not by their
// sum.
#include "device/cpu/gemm_kernel.h"
#include "device/cpu/scratch.h"
#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/gemm_few_rows.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/gemm_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

constexpr int64_t kLine = 64;
constexpr int64_t kUnitBytes = sizeof(float);

// Columns of a factor, kVectors vectors wide, unit by unit of depth: a packed panel of them,
template <int64_t vectors>
struct PackedColumns {
  static constexpr int64_t kVectors = vectors;
  static constexpr int64_t kLinesAhead = 1;
  const float* at;

  HWY_INLINE HWY_ATTR void next(Vec (&units)[kVectors]) {
    for (Vec& v : units) {
      v = hn::Load(Floats(), at);
      at += kLanes;
    }
  }
};

// or `left` columns of a matrix where it lies.
template <class Kind>
struct ColumnsInPlace {
  static constexpr int64_t kVectors = 2;
  static constexpr int64_t kLinesAhead = 2;
  const typename Kind::Element* at;
  int64_t stride;
  int64_t left;

  HWY_INLINE HWY_ATTR void next(Vec (&units)[kVectors]) {
    units[0] = units_of_rows<Kind>(at, stride, true, left);
    units[1] = left > kLanes ? units_of_rows<Kind>(at + kLanes, stride, true, left - kLanes) : hn::Zero(Floats());
    at += Kind::kPerUnit * stride;
  }
};

// The most rows of a tile of so many vectors.
template <int64_t vectors>
constexpr int64_t kHighest = vectors == 2   ? kRows
                             : kLanes == 16 ? 16
                                            : 8;

// Memory that will be needed: kLinesAhead lines for every unit of depth, `second` bytes apart, and `step` from one unit
// to the next.
struct Ahead {
  const char* at;
  int64_t step;
  int64_t second;
};

// Rows of sums, `stride` floats apart.
struct Sums {
  float* at;
  int64_t stride;
};

// sums[rows, kVectors x kLanes] = a columns over `units` of depth, or the sums' chains continued; a's rows are `stride`
// bytes apart.
template <class Kind, int64_t rows, class Columns>
HWY_NOINLINE HWY_ATTR void tile_sums(int64_t units, const char* a, int64_t stride, Columns columns, Ahead ahead,
                                     bool continues, Sums sums) {
  const Floats d;
  constexpr int64_t kVectors = Columns::kVectors;
  // Two bases, so that all rows are reached by scaled indices.
  constexpr int64_t kHalf = (rows + 1) / 2;
  const char* low = a;
  const char* high = a + kHalf * stride;
  Vec sum[rows][kVectors];
#pragma GCC unroll 16
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) {
      sum[i][v] = continues ? hn::Load(d, sums.at + i * sums.stride + v * kLanes) : hn::Zero(d);
    }
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k < units; ++k) {
    Vec b[kVectors];
    columns.next(b);
#pragma GCC unroll 2
    for (int64_t n = 0; n < Columns::kLinesAhead; ++n) hwy::Prefetch(ahead.at + n * ahead.second);
    ahead.at += ahead.step;
#pragma GCC unroll 16
    for (int64_t i = 0; i < rows; ++i) {
      const char* const unit = i < kHalf ? low + i * stride : high + (i - kHalf) * stride;
      if constexpr (kVectors == 1) {
        sum[i][0] = Kind::add_broadcast(unit, b[0], sum[i][0]);
      } else {
        const Vec x = broadcast(unit);
        sum[i][0] = Kind::add(x, b[0], sum[i][0]);
        sum[i][1] = Kind::add(x, b[1], sum[i][1]);
      }
    }
    low += kUnitBytes;
    high += kUnitBytes;
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) hn::Store(sum[i][v], d, sums.at + i * sums.stride + v * kLanes);
  }
}

// The one of them that has `rows`.
template <class Kind, class Columns, int64_t... i>
HWY_INLINE HWY_ATTR void tile_sums_of(std::integer_sequence<int64_t, i...> /*rows*/, int64_t rows, int64_t units,
                                      const char* a, int64_t stride, Columns columns, Ahead ahead, bool continues,
                                      Sums sums) {
  constexpr int64_t kMost = sizeof...(i);  // the usual one: it is looked for first
  (void)((rows == kMost - i && (tile_sums<Kind, kMost - i>(units, a, stride, columns, ahead, continues, sums), true)) ||
         ...);
}
template <int64_t vectors>
constexpr auto kHeights = std::make_integer_sequence<int64_t, kHighest<vectors>>();

// to[0, cols) = or += sums, rounded
template <class C>
HWY_INLINE HWY_ATTR void write_row(const float* sums, int64_t cols, C* to, bool accumulate) {
  for (int64_t j = 0; j < cols; j += kLanes) {
    const Vec sum = hn::Load(Floats(), sums + j);
    store(accumulate ? hn::Add(load(to + j, cols - j), sum) : sum, to + j, cols - j);
  }
}

// b is [n, k]. Its rows are what is broadcast, rows of a are packed as columns, and every tile of sums is transposed.
// Memory is read in the order in which it lies.
template <class Kind, int64_t vectors, class C>
HWY_ATTR void rows_as_columns(const GemmTile& t, const Factor& next, float* workspace) {
  using T = typename Kind::Element;
  constexpr int64_t kDepth = kGemmDepth * Kind::kPerUnit;
  constexpr int64_t kHigh = kHighest<vectors>;
  constexpr int64_t kWide = vectors * kLanes;
  const auto* const a = static_cast<const T*>(t.a.data);
  const int64_t panel = units_of<Kind>(t.k) * kWide;
  for (int64_t i = 0; i < t.m; i += kWide) {
    pack_transposed<Kind>(a + i * t.a.stride, t.a.stride, t.k, std::min(kWide, t.m - i), kWide,
                          workspace + i / kWide * panel);
  }
  // As far ahead as memory is away.
  constexpr int64_t kAhead = 8192;
  const int64_t stride = t.b.stride * int64_t{sizeof(T)};
  const int64_t rows_ahead = (kAhead + kHigh * stride - 1) / (kHigh * stride) * kHigh;
  const char* const b = static_cast<const char*>(t.b.data);
  auto* const c = static_cast<C*>(t.c.data);
  HWY_ALIGN float sums[kHigh * kWide];
  HWY_ALIGN float totals[kHigh * kWide];
  constexpr int64_t kAcross = std::max(kHigh, kLanes);
  HWY_ALIGN float transposed[kWide * kAcross];
  for (int64_t j = 0; j < t.n; j += kHigh) {
    const int64_t high = std::min(kHigh, t.n - j);
    const char* ahead = b + (j + rows_ahead) * stride;
    if (j + rows_ahead >= t.n) {
      ahead = next.data == nullptr ? b : static_cast<const char*>(next.data) + (j + rows_ahead - t.n) * stride;
    }
    for (int64_t i = 0; i < t.m; i += kWide) {
      const float* packed = workspace + i / kWide * panel;
      const char* rows = b + j * stride;
      for (int64_t k = 0; k < t.k; k += kDepth) {
        const int64_t units = units_of<Kind>(std::min(kDepth, t.k - k));
        tile_sums_of<Kind>(kHeights<vectors>, high, units, rows, stride, PackedColumns<vectors>{packed},
                           Ahead{ahead, kHigh * kUnitBytes, 0}, false, Sums{sums, kWide});
        packed += units * kWide;
        rows += units * kUnitBytes;
        ahead += units * kHigh * kUnitBytes;
        if (t.k <= kDepth) continue;
        for (int64_t r = 0; r < high; ++r) write_row(sums + r * kWide, kWide, totals + r * kWide, k > 0);
      }
      const int64_t columns = std::min(kWide, t.m - i);
      pack_transposed<Singles>(t.k > kDepth ? totals : sums, kWide, columns, high, kAcross, transposed);
      for (int64_t r = 0; r < columns; ++r) {
        write_row(transposed + r * kAcross, high, c + (i + r) * t.c.stride + j, false);
      }
    }
  }
}

// b is [k, n]: its rows are the vectors. A part of its depth that a cache holds meets all columns before the next one
// does.
template <class Kind, class C>
HWY_ATTR void rows_in_place(const GemmTile& t, const Factor& next, float* workspace) {
  using T = typename Kind::Element;
  constexpr int64_t kDepth = kGemmDepth * Kind::kPerUnit;
  constexpr int64_t kPart = 64 * Kind::kPerUnit;
  static_assert(kDepth % kPart == 0);
  const auto* const a = static_cast<const T*>(t.a.data);
  const auto* const b = static_cast<const T*>(t.b.data);
  auto* const c = static_cast<C*>(t.c.data);
  const int64_t a_stride = t.a.stride * int64_t{sizeof(T)};
  const int64_t b_stride = t.b.stride * int64_t{sizeof(T)};
  const int64_t tiles = (t.m + kRows - 1) / kRows;
  const int64_t high = (t.m + tiles - 1) / tiles;
  const int64_t width = gemm_packed_width(t.n);
  const Sums sums{workspace, width};
  const Sums totals{workspace + t.m * width, width};
  const bool several = t.k > kDepth;
  for (int64_t k = 0; k < t.k; k += kPart) {
    const int64_t units = units_of<Kind>(std::min(kPart, t.k - k));
    const bool last = k + kPart >= t.k;
    const auto* const part = last ? static_cast<const T*>(next.data) : b + (k + kPart) * t.b.stride;
    // Lines of the next part: in order if they lie so, else those of the same columns.
    const bool in_order = t.b.stride == t.n;
    Ahead ahead{bytes_of(part), kCols * int64_t{sizeof(float)} / tiles, kLine};
    if (!in_order) ahead = {bytes_of(part), b_stride * Kind::kPerUnit, Kind::kPerUnit == 1 ? kLine : b_stride};
    if (part == nullptr) ahead = {bytes_of(b), 0, 0};
    for (int64_t j = 0; j < t.n; j += kCols) {
      for (int64_t i = 0; i < t.m; i += high) {
        tile_sums_of<Kind>(kHeights<2>, std::min(high, t.m - i), units, bytes_of(a + i * t.a.stride + k), a_stride,
                           ColumnsInPlace<Kind>{b + k * t.b.stride + j, t.b.stride, t.n - j}, ahead, k % kDepth > 0,
                           Sums{sums.at + i * width + j, width});
        if (in_order) ahead.at += units * ahead.step;
      }
      if (!in_order && part != nullptr) ahead.at += kCols * int64_t{sizeof(T)};
    }
    if (!last && (k + kPart) % kDepth != 0) continue;
    for (int64_t i = 0; i < t.m; ++i) {
      const float* row = sums.at + i * width;
      if (several) {
        write_row(row, width, totals.at + i * width, k >= kDepth);
        row = totals.at + i * width;
      }
      if (last) write_row(row, t.n, c + i * t.c.stride, false);
    }
  }
}

template <class Kind, class C>
HWY_ATTR void few_rows_into(const GemmTile& t, const Factor& next, float* workspace) {
  if (!t.b.transposed) {
    rows_in_place<Kind, C>(t, next, workspace);
  } else if (t.m <= kLanes) {
    rows_as_columns<Kind, 1, C>(t, next, workspace);
  } else {
    rows_as_columns<Kind, 2, C>(t, next, workspace);
  }
}

template <class Kind>
HWY_ATTR void few_rows(const GemmTile& t, const Factor& next, float* workspace) {
  t.c.dtype == DType::bf16 ? few_rows_into<Kind, bf16>(t, next, workspace)
                           : few_rows_into<Kind, float>(t, next, workspace);
}

HWY_ATTR void gemm_few_rows_simd(const GemmTile& t, const Factor& next, float* workspace) {
  if (t.a.dtype == DType::f32) {
    few_rows<Singles>(t, next, workspace);
    return;
  }
  const WithoutDenormals guard;
  t.bf16_dot ? few_rows<DotPairs>(t, next, workspace) : few_rows<Pairs<false>>(t, next, workspace);
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(gemm_few_rows_simd);

bool has_few_rows(const GemmTile& t) {
  // Measured: with more rows packing b costs less than it saves.
  const int64_t most = t.b.transposed ? kFewRows : kFewRows / 2;
  return t.m <= most && t.k > 0 && t.k % 2 == 0 && t.a.dtype == t.b.dtype && !t.a.transposed && !t.c.accumulate;
}

void gemm_few_rows(const GemmTile& tile, const Factor& next, float* workspace) {
  HWY_DYNAMIC_DISPATCH(gemm_few_rows_simd)(tile, next, workspace);
}

}  // namespace sluice::cpu
#endif
