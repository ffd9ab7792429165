// Packed operands of the inner product (gemm_micro-inl.h), per instruction set (a Highway "-inl" header: included once
// per target). Matrices are of float or bf16; rows are `stride` elements apart. Where bf16 meets a float, it is
// widened; where the depth is odd, the last pair ends with a zero.
#if defined(SLUICE_DEVICE_CPU_GEMM_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SLUICE_DEVICE_CPU_GEMM_PACK_INL_H_
#undef SLUICE_DEVICE_CPU_GEMM_PACK_INL_H_
#else
#define SLUICE_DEVICE_CPU_GEMM_PACK_INL_H_
#endif

#include <bit>

#include "device/cpu/gemm_micro-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

template <class Kind>
constexpr int64_t units_of(int64_t depth) {
  return (depth + Kind::kPerUnit - 1) / Kind::kPerUnit;
}

inline float unit_of(bf16 earlier, bf16 later) {
  return std::bit_cast<float>(static_cast<uint32_t>(later.bits) << 16 | earlier.bits);
}

// The unit whose elements lie `step` apart from `from` on, `left` of them at most.
template <class Kind, class T>
HWY_INLINE float unit_at(const T* from, int64_t step, int64_t left) {
  if constexpr (Kind::kPerUnit == 1) {
    return static_cast<float>(*from);
  } else {
    return unit_of(*from, left > 1 ? from[step] : bf16());
  }
}

// kLanes units of one row of a matrix, or of two that are `stride` apart if `two`, else those of zeros; `left` of them
// at most, then zeros.
template <class Kind, class T>
HWY_INLINE HWY_ATTR Vec units_of_rows(const T* first, int64_t stride, bool two, int64_t left) {
  if constexpr (Kind::kPerUnit == 1) {
    return load(first, left);
  } else {
    const hn::RebindToUnsigned<Floats> u;
    const auto earlier = hn::PromoteTo(u, load_bits(&first->bits, left));
    if (!two) return hn::BitCast(Floats(), earlier);
    // As a float bf16 are in the upper half.
    return hn::BitCast(Floats(), hn::Or(earlier, hn::BitCast(u, load(first + stride, left))));
  }
}

// to[u][j] = unit u of column j of b [depth, cols], kCols units to a row of `to`; columns from `cols` on are zeros.
template <class Kind, class T>
HWY_INLINE HWY_ATTR void pack_panel(const T* b, int64_t stride, int64_t depth, int64_t cols, float* HWY_RESTRICT to) {
  const Floats d;
  for (int64_t k = 0; k < depth; k += Kind::kPerUnit, to += kCols) {
    const T* first = b + k * stride;
    const bool two = k + 1 < depth;
    hn::Store(units_of_rows<Kind>(first, stride, two, cols), d, to);
    hn::Store(cols > kLanes ? units_of_rows<Kind>(first + kLanes, stride, two, cols - kLanes) : hn::Zero(d), d,
              to + kLanes);
  }
}

#if HWY_TARGET != HWY_SCALAR
// Four units of a row.
using Four = hn::FixedTag<float, 4>;
template <class Kind, class T>
HWY_INLINE HWY_ATTR hn::Vec<Four> four_units(const T* from) {
  if constexpr (Kind::kPerUnit == 2) {
    return hn::LoadU(Four(), reinterpret_cast<const float*>(from));
  } else if constexpr (std::is_same_v<T, float>) {
    return hn::LoadU(Four(), from);
  } else {
    const hn::Rebind<uint16_t, Four> half;
    const hn::RebindToUnsigned<Four> wide;
    return hn::BitCast(Four(), hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(half, &from->bits))));
  }
}

// Four units of rows 0, 4, 8, ... of b, as many as D has blocks of 128 bits.
template <class Kind, class D, class T>
HWY_INLINE HWY_ATTR hn::Vec<D> every_fourth(D d, const T* b, int64_t stride) {
  if constexpr (hn::MaxLanes(d) == 4) {
    return four_units<Kind>(b);
  } else {
    const hn::Half<D> half;
    constexpr int64_t kLower = hn::MaxLanes(half);
    return hn::Combine(d, every_fourth<Kind>(half, b + kLower * stride, stride), every_fourth<Kind>(half, b, stride));
  }
}

// to[u][j] = unit u of row j of b for as many rows as D has lanes, and all units in whole fours; returns their number.
template <class Kind, class D, class T>
HWY_INLINE HWY_ATTR int64_t pack_rows_across(D d, const T* b, int64_t stride, int64_t depth, int64_t width,
                                             float* HWY_RESTRICT to) {
  constexpr int64_t kStep = 4 * Kind::kPerUnit;
  const hn::Repartition<double, D> twos;
  int64_t k = 0;
  for (; k + kStep <= depth; k += kStep, to += 4 * width) {
    const auto r0 = every_fourth<Kind>(d, b + k, stride);
    const auto r1 = every_fourth<Kind>(d, b + stride + k, stride);
    const auto r2 = every_fourth<Kind>(d, b + 2 * stride + k, stride);
    const auto r3 = every_fourth<Kind>(d, b + 3 * stride + k, stride);
    const auto low01 = hn::BitCast(twos, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(twos, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(twos, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(twos, hn::InterleaveUpper(d, r2, r3));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(twos, low01, low23)), d, to);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(twos, low01, low23)), d, to + width);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(twos, high01, high23)), d, to + 2 * width);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(twos, high01, high23)), d, to + 3 * width);
  }
  return k / Kind::kPerUnit;
}
#endif

// to[u][j] = unit u of row j of b [cols, depth], `width` units to a row of `to`; rows from `cols` on are zeros.
template <class Kind, class T>
HWY_INLINE HWY_ATTR void pack_transposed(const T* b, int64_t stride, int64_t depth, int64_t cols, int64_t width,
                                         float* HWY_RESTRICT to) {
  const int64_t units = units_of<Kind>(depth);
  // Units from `done` on of rows [begin, end).
  const auto pack_rest = [&](int64_t begin, int64_t end, int64_t done) {
    for (int64_t j = begin; j < end; ++j) {
      const T* row = b + j * stride;
      for (int64_t u = done; u < units; ++u) {
        const int64_t k = u * Kind::kPerUnit;
        to[u * width + j] = j < cols ? unit_at<Kind>(row + k, 1, depth - k) : 0.0F;
      }
    }
  };
  int64_t first = 0;
#if HWY_TARGET != HWY_SCALAR
  for (; first + kLanes <= cols; first += kLanes) {
    pack_rest(first, first + kLanes,
              pack_rows_across<Kind>(Floats(), b + first * stride, stride, depth, width, to + first));
  }
  for (; first + 4 <= cols; first += 4) {
    pack_rest(first, first + 4, pack_rows_across<Kind>(Four(), b + first * stride, stride, depth, width, to + first));
  }
#endif
  pack_rest(first, width, 0);
}

// Panels of b [depth, cols] (or of its transpose, if b is [cols, depth]) one after another.
template <class Kind, class T>
HWY_INLINE HWY_ATTR void pack_panels(const T* b, int64_t stride, bool transposed, int64_t depth, int64_t cols,
                                     float* to) {
  for (int64_t j = 0; j < cols; j += kCols, to += units_of<Kind>(depth) * kCols) {
    const int64_t width = std::min(kCols, cols - j);
    if (transposed) {
      pack_transposed<Kind>(b + j * stride, stride, depth, width, kCols, to);
    } else {
      pack_panel<Kind>(b + j, stride, depth, width, to);
    }
  }
}

// How many of the next rows make a panel: kRows, but the last two are of equal height.
constexpr int64_t panel_height(int64_t left) {
  return left <= kRows ? left : left < 2 * kRows ? (left + 1) / 2 : kRows;
}

// Panels [units, kRows] of the columns of a [depth, cols], as panel_height() cuts them, kRows x units floats for each:
// a row of a is read whole, so that its cache lines are used at once.
template <class Kind, class T>
HWY_INLINE HWY_ATTR void pack_row_panels(const T* a, int64_t stride, int64_t depth, int64_t cols, float* to) {
  const int64_t panel = kRows * units_of<Kind>(depth);
  for (int64_t k = 0; k < depth; k += Kind::kPerUnit, to += kRows) {
    const T* from = a + k * stride;
    float* units = to;
    for (int64_t i = 0; i < cols; units += panel) {
      const int64_t rows = panel_height(cols - i);
      for (int64_t r = 0; r < rows; r += kLanes) {
        store(units_of_rows<Kind>(from + i + r, stride, k + 1 < depth, rows - r), units + r, rows - r);
      }
      i += rows;
    }
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
