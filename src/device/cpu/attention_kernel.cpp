#include "device/cpu/attention_kernel.h"

#include <algorithm>
#include <cmath>

#include "device/cpu/scratch.h"
#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/attention_kernel.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/gemm_micro-inl.h"
#include "device/cpu/vector_math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sluice::cpu::HWY_NAMESPACE {

constexpr float kLog2e = 1.44269504F;
constexpr float kLn2 = 0.69314718F;

static_assert(kAttentionPad >= kCols && kAttentionQueries >= kRows && kAttentionKeys % kCols == 0);
// Queries of a block: whole row panels.
constexpr int64_t kQueries = kAttentionQueries / kRows * kRows;
// Row stride of a block of scores: no power of two, because columns are read too.
constexpr int64_t kScoreStride = kAttentionKeys + kAttentionPad / 2;

constexpr int64_t up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// Hands out the workspace piece by piece.
class Pieces {
 public:
  explicit Pieces(float* next) : next_(next) {}
  float* take(int64_t floats) {
    float* piece = next_;
    next_ += up(floats, kCols);
    return piece;
  }

 private:
  float* next_;
};

// Panels of keys [dim, kCols], key panels one after another: scores' right operand.
HWY_ATTR void pack_keys(RowsIn k, int64_t seq_len, int64_t dim, float* to) {
  pack_panels(k.data, k.stride, true, dim, seq_len, to);
}

HWY_ATTR int64_t first_key(const AttentionHead& head, int64_t position) {
  return head.window > 0 ? std::max<int64_t>(0, position - head.window + 1) : 0;
}

// c[rows, cols] = a b with a few rows of a strided matrix; a panel of fewer rows than kRows is packed first.
HWY_ATTR void strided_rows(int64_t depth, const float* a, int64_t stride, int64_t rows, const float* b, int64_t panel,
                           int64_t cols, float* c, int64_t ldc, float* packed) {
  if (rows == kRows) {
    row_panel<Along::rows>(depth, a, stride, b, panel, kRows, up(cols, kCols), c, ldc, false);
  } else {
    pack_transposed<kRows>(a, stride, depth, rows, packed);
    row_panel<Along::depth>(depth, packed, kRows, b, panel, kRows, up(cols, kCols), c, ldc, false);
  }
}

// p = exp2(factor s - shift) for columns [begin, end) of a row, zeros in the rest of [0, width); returns their sum.
// Vectors that reach outside [begin, end) read scores that mean nothing and are masked.
HWY_ATTR float exp_row(float* s, int64_t begin, int64_t end, int64_t width, float factor, float shift) {
  const F f;
  const V by = hn::Set(f, factor);
  const V minus = hn::Set(f, -shift);
  V sum = hn::Zero(f);
  int64_t j = begin / kWidth * kWidth;
  for (int64_t i = 0; i < j; i += kWidth) hn::StoreU(hn::Zero(f), f, s + i);
  for (; j < end; j += kWidth) {
    V p = exp2(hn::MulAdd(hn::LoadU(f, s + j), by, minus));
    if (j < begin || j + kWidth > end) {
      auto valid = hn::FirstN(f, static_cast<size_t>(end - j));
      if (j < begin) valid = hn::AndNot(hn::FirstN(f, static_cast<size_t>(begin - j)), valid);
      p = hn::IfThenElseZero(valid, p);
    }
    hn::StoreU(p, f, s + j);
    sum = hn::Add(sum, p);
  }
  for (; j < width; j += kWidth) hn::StoreU(hn::Zero(f), f, s + j);
  return sum_of(sum);
}

// The largest factor s of columns [begin, end).
HWY_ATTR float max_row(const float* s, int64_t begin, int64_t end, float factor) {
  const F f;
  const V by = hn::Set(f, factor);
  const V none = hn::Set(f, -INFINITY);
  V most = none;
  for (int64_t j = begin / kWidth * kWidth; j < end; j += kWidth) {
    V x = hn::Mul(hn::LoadU(f, s + j), by);
    if (j < begin || j + kWidth > end) {
      auto valid = hn::FirstN(f, static_cast<size_t>(end - j));
      if (j < begin) valid = hn::AndNot(hn::FirstN(f, static_cast<size_t>(begin - j)), valid);
      x = hn::IfThenElse(valid, x, none);
    }
    most = hn::Max(most, x);
  }
  return hn::GetLane(hn::MaxOfLanes(f, most));
}

HWY_ATTR void scale_to(const float* from, float factor, float* to, int64_t n) {
  const F f;
  const V by = hn::Set(f, factor);
  for (int64_t i = 0; i < n; i += kWidth) store(hn::Mul(load(from + i, n - i), by), to + i, n - i);
}

HWY_ATTR float dot(const float* a, const float* b, int64_t n) {
  V sum = hn::Zero(F());
  for (int64_t i = 0; i < n; i += kWidth) sum = hn::MulAdd(load(a + i, n - i), load(b + i, n - i), sum);
  return sum_of(sum);
}

HWY_ATTR void attention_forward_simd(const AttentionHeadForward& head, float* workspace) {
  const int64_t seq = head.seq_len;
  const int64_t num_keys = head.past + seq;
  const int64_t dim = head.dim;
  const int64_t v_dim = head.v_dim;
  const int64_t o_stride = up(v_dim, kCols);
  Pieces pieces(workspace);
  float* keys = pieces.take(up(num_keys, kCols) * dim);  // panels [dim, kCols] of keys
  float* values = pieces.take(num_keys * o_stride);      // panels [num_keys, kCols] of columns
  float* scores = pieces.take(kRows * kScoreStride);
  float* o = pieces.take(kRows * o_stride);
  float* packed = pieces.take(kRows * dim);
  pack_keys(head.k, num_keys, dim, keys);
  pack_panels(head.v.data, head.v.stride, false, num_keys, v_dim, values);
  const float factor = head.scale * kLog2e;

  for (int64_t h = 0; h < head.group; ++h) {
    for (int64_t i0 = 0; i0 < seq; i0 += kRows) {
      const int64_t rows = std::min(kRows, seq - i0);
      const int64_t position = head.past + i0;
      const int64_t end = position + rows;  // keys that any of the rows sees
      const int64_t begin = first_key(head, position) / kCols * kCols;
      float most[kRows];
      float sum[kRows];
      std::fill_n(most, kRows, -INFINITY);
      std::fill_n(sum, kRows, 0.0F);
      for (int64_t j0 = begin; j0 < end; j0 += kAttentionKeys) {
        const int64_t cols = std::min(kAttentionKeys, end - j0);
        strided_rows(dim, head.q.data + i0 * head.q.stride + h * dim, head.q.stride, rows, keys + j0 * dim, kCols * dim,
                     cols, scores, kScoreStride, packed);
        for (int64_t i = 0; i < rows; ++i) {
          float* s = scores + i * kScoreStride;
          const int64_t first = std::clamp<int64_t>(first_key(head, position + i) - j0, 0, cols);
          const int64_t last = std::clamp<int64_t>(position + i + 1 - j0, first, cols);
          const float largest = std::max(most[i], max_row(s, first, last, factor));
          const float before = most[i] == largest ? 1.0F : std::exp2(most[i] - largest);
          most[i] = largest;
          sum[i] = sum[i] * before + exp_row(s, first, last, up(cols, kCols), factor, largest);
          if (j0 > begin && before != 1.0F) scale_to(o + i * o_stride, before, o + i * o_stride, v_dim);
        }
        row_panel<Along::rows>(cols, scores, kScoreStride, values + j0 * kCols, num_keys * kCols, kRows, o_stride, o,
                               o_stride, j0 > begin);
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t t = i0 + i;
        scale_to(o + i * o_stride, 1.0F / sum[i], head.o.data + t * head.o.stride + h * v_dim, v_dim);
        head.lse.data[t * head.lse.stride + h] = kLn2 * most[i] + std::log(sum[i]);
      }
    }
  }
}

// p and ds of a row: p = exp2(factor s - lse log2 e), ds = p (dp - delta) for columns [begin, end), else 0.
HWY_ATTR void score_gradient(float* s, float* dp, int64_t begin, int64_t end, int64_t width, float factor, float lse,
                             float delta) {
  exp_row(s, begin, end, width, factor, lse * kLog2e);
  const F f;
  const V minus = hn::Set(f, delta);
  int64_t j = 0;
  for (; j < begin / kWidth * kWidth; j += kWidth) hn::StoreU(hn::Zero(f), f, dp + j);
  for (; j < end; j += kWidth) {
    V ds = hn::Mul(hn::LoadU(f, s + j), hn::Sub(hn::LoadU(f, dp + j), minus));
    // Columns behind the last key panel were never computed.
    if (j + kWidth > end) ds = hn::IfThenElseZero(hn::FirstN(f, static_cast<size_t>(end - j)), ds);
    hn::StoreU(ds, f, dp + j);
  }
  for (; j < width; j += kWidth) hn::StoreU(hn::Zero(f), f, dp + j);
}

// The packed operands of one key/value head, and its sums.
struct BackwardPieces {
  float* keys;      // panels [dim, kCols] of keys
  float* values;    // panels [v_dim, kCols] of keys
  float* key_cols;  // panels [seq, kCols] of columns
  float* dk;        // [seq, up(dim)]
  float* dv;        // [seq, up(v_dim)]
  float* queries;   // panels [kQueries, kCols] of columns, one block
  float* d_o;       // likewise
  float* dq;        // [kQueries, up(dim)]
  float* p;         // [kQueries, kScoreStride]
  float* ds;        // likewise
  float* packed;    // one row panel
  float* delta;     // [kQueries]
};

// dq, and the block's part of dk and dv, of queries [i0, i0 + rows) of head h.
HWY_ATTR void backward_block(const AttentionHeadBackward& head, const BackwardPieces& w, int64_t h, int64_t i0,
                             int64_t rows) {
  const int64_t seq = head.seq_len;
  const int64_t dim = head.dim;
  const int64_t v_dim = head.v_dim;
  const int64_t k_stride = up(dim, kCols);
  const int64_t v_stride = up(v_dim, kCols);
  const float factor = head.scale * kLog2e;
  const float* q = head.q.data + i0 * head.q.stride + h * dim;
  const float* d_o = head.d_o.data + i0 * head.d_o.stride + h * v_dim;
  const float* o = head.o.data + i0 * head.o.stride + h * v_dim;
  pack_panels(q, head.q.stride, false, rows, dim, w.queries);
  pack_panels(d_o, head.d_o.stride, false, rows, v_dim, w.d_o);
  for (int64_t i = 0; i < rows; ++i) w.delta[i] = dot(d_o + i * head.d_o.stride, o + i * head.o.stride, v_dim);

  const int64_t begin = first_key(head, i0) / kCols * kCols;
  for (int64_t j0 = begin; j0 < i0 + rows; j0 += kAttentionKeys) {
    const int64_t cols = std::min(kAttentionKeys, i0 + rows - j0);
    for (int64_t r = 0; r < rows; r += kRows) {
      const int64_t panel_rows = std::min(kRows, rows - r);
      // Keys [unseen, seen) of the block are those that any row of the panel sees.
      const int64_t seen = std::clamp<int64_t>(i0 + r + panel_rows - j0, 0, cols);
      const int64_t unseen = std::clamp<int64_t>(first_key(head, i0 + r) / kCols * kCols - j0, 0, seen);
      float* p = w.p + r * kScoreStride;
      float* ds = w.ds + r * kScoreStride;
      if (seen > unseen) {
        strided_rows(dim, q + r * head.q.stride, head.q.stride, panel_rows, w.keys + (j0 + unseen) * dim, kCols * dim,
                     seen - unseen, p + unseen, kScoreStride, w.packed);
        strided_rows(v_dim, d_o + r * head.d_o.stride, head.d_o.stride, panel_rows, w.values + (j0 + unseen) * v_dim,
                     kCols * v_dim, seen - unseen, ds + unseen, kScoreStride, w.packed);
      }
      for (int64_t i = 0; i < panel_rows; ++i) {
        const int64_t t = i0 + r + i;
        const int64_t first = std::clamp<int64_t>(first_key(head, t) - j0, 0, cols);
        const int64_t last = std::clamp<int64_t>(t + 1 - j0, first, cols);
        score_gradient(p + i * kScoreStride, ds + i * kScoreStride, first, last, kScoreStride, factor,
                       head.lse.data[t * head.lse.stride + h], w.delta[r + i]);
      }
      if (seen > unseen) {
        row_panel<Along::rows>(seen - unseen, ds + unseen, kScoreStride, w.key_cols + (j0 + unseen) * kCols,
                               seq * kCols, kRows, k_stride, w.dq + r * k_stride, k_stride, j0 > begin);
      }
    }
    // Keys [j, j + kRows) are seen by queries from j on, up to the window's end.
    for (int64_t j = 0; j < cols; j += kRows) {
      const int64_t first = std::clamp<int64_t>(j0 + j - i0, 0, rows);
      const int64_t last = head.window > 0 ? std::clamp(j0 + j + kRows - 1 + head.window - i0, first, rows) : rows;
      const int64_t key_rows = std::min(kRows, cols - j);
      row_panel<Along::depth>(last - first, w.p + first * kScoreStride + j, kScoreStride, w.d_o + first * kCols,
                              rows * kCols, key_rows, v_stride, w.dv + (j0 + j) * v_stride, v_stride, true);
      row_panel<Along::depth>(last - first, w.ds + first * kScoreStride + j, kScoreStride, w.queries + first * kCols,
                              rows * kCols, key_rows, k_stride, w.dk + (j0 + j) * k_stride, k_stride, true);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    scale_to(w.dq + i * k_stride, head.scale, head.dq.data + (i0 + i) * head.dq.stride + h * dim, dim);
  }
}

HWY_ATTR void attention_backward_simd(const AttentionHeadBackward& head, float* workspace) {
  const int64_t seq = head.seq_len;
  const int64_t k_stride = up(head.dim, kCols);
  const int64_t v_stride = up(head.v_dim, kCols);
  Pieces pieces(workspace);
  BackwardPieces w{};
  w.keys = pieces.take(up(seq, kCols) * head.dim);
  w.values = pieces.take(up(seq, kCols) * head.v_dim);
  w.key_cols = pieces.take(seq * k_stride);
  w.dk = pieces.take(seq * k_stride);
  w.dv = pieces.take(seq * v_stride);
  w.queries = pieces.take(kQueries * k_stride);
  w.d_o = pieces.take(kQueries * v_stride);
  w.dq = pieces.take(kQueries * k_stride);
  w.p = pieces.take(kQueries * kScoreStride);
  w.ds = pieces.take(kQueries * kScoreStride);
  w.packed = pieces.take(kRows * std::max(head.dim, head.v_dim));
  w.delta = pieces.take(kQueries);

  pack_keys(head.k, seq, head.dim, w.keys);
  pack_keys(head.v, seq, head.v_dim, w.values);
  pack_panels(head.k.data, head.k.stride, false, seq, head.dim, w.key_cols);
  std::fill_n(w.dk, seq * k_stride, 0.0F);
  std::fill_n(w.dv, seq * v_stride, 0.0F);
  for (int64_t h = 0; h < head.group; ++h) {
    for (int64_t i0 = 0; i0 < seq; i0 += kQueries) backward_block(head, w, h, i0, std::min(kQueries, seq - i0));
  }
  for (int64_t j = 0; j < seq; ++j) {
    scale_to(w.dk + j * k_stride, head.scale, head.dk.data + j * head.dk.stride, head.dim);
    scale_to(w.dv + j * v_stride, 1.0F, head.dv.data + j * head.dv.stride, head.v_dim);
  }
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(attention_forward_simd);
HWY_EXPORT(attention_backward_simd);

void attention_forward(const AttentionHeadForward& head, float* workspace) {
  HWY_DYNAMIC_DISPATCH(attention_forward_simd)(head, workspace);
}
void attention_backward(const AttentionHeadBackward& head, float* workspace) {
  HWY_DYNAMIC_DISPATCH(attention_backward_simd)(head, workspace);
}

}  // namespace sluice::cpu
#endif
