#include "device/cpu/attention_kernel.h"

#include <algorithm>
#include <cmath>

#include "device/cpu/scratch.h"
#include "device/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "device/cpu/attention_kernel.cpp"
#include <hwy/foreach_target.h>  // compiles this file once per target

#include "device/cpu/gemm_pack-inl.h"

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

template <class T>
HWY_ATTR int64_t first_key(const AttentionHead<T>& head, int64_t position) {
  return head.window > 0 ? std::max<int64_t>(0, position - head.window + 1) : 0;
}

// c[rows, cols] = a b with a few rows of a strided matrix, cols padded to whole panels.
template <class Kind, class T>
HWY_ATTR void strided_rows(int64_t depth, const T* a, int64_t stride, int64_t rows, const float* b, int64_t cols,
                           float* c, float* packed) {
  const int64_t units = units_of<Kind>(depth);
  if (depth % Kind::kPerUnit == 0) {
    row_panel<Kind, Along::rows>(units, bytes_of(a), stride * int64_t{sizeof(T)}, b, kCols * units, rows,
                                 up(cols, kCols), c, kScoreStride, false);
  } else {
    pack_transposed<Kind>(a, stride, depth, rows, kRows, packed);
    row_panel<Kind, Along::depth>(units, bytes_of(packed), kRows * int64_t{sizeof(float)}, b, kCols * units, rows,
                                  up(cols, kCols), c, kScoreStride, false);
  }
}

// p = exp2(factor s - shift) for columns [begin, end) of a row, zeros in the rest of [0, width); returns their sum,
// before p is rounded. p may begin where s does. Vectors that reach outside [begin, end) read scores that mean nothing
// and are masked.
template <class P>
HWY_ATTR float exp_row(const float* s, P* to, int64_t begin, int64_t end, int64_t width, float factor, float shift) {
  const F f;
  const V by = hn::Set(f, factor);
  const V minus = hn::Set(f, -shift);
  V sum = hn::Zero(f);
  int64_t j = begin / kWidth * kWidth;
  for (int64_t i = 0; i < j; i += kWidth) store(hn::Zero(f), to + i, kWidth);
  for (; j < end; j += kWidth) {
    V p = exp2(hn::MulAdd(hn::LoadU(f, s + j), by, minus));
    if (j < begin || j + kWidth > end) {
      auto valid = hn::FirstN(f, static_cast<size_t>(end - j));
      if (j < begin) valid = hn::AndNot(hn::FirstN(f, static_cast<size_t>(begin - j)), valid);
      p = hn::IfThenElseZero(valid, p);
    }
    store(p, to + j, kWidth);
    sum = hn::Add(sum, p);
  }
  for (; j < width; j += kWidth) store(hn::Zero(f), to + j, kWidth);
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

template <class T>
HWY_ATTR void scale_to(const float* from, float factor, T* to, int64_t n) {
  const F f;
  const V by = hn::Set(f, factor);
  for (int64_t i = 0; i < n; i += kWidth) store(hn::Mul(load(from + i, n - i), by), to + i, n - i);
}

template <class T>
HWY_ATTR float dot(const T* a, const T* b, int64_t n) {
  V sum = hn::Zero(F());
  for (int64_t i = 0; i < n; i += kWidth) sum = hn::MulAdd(load(a + i, n - i), load(b + i, n - i), sum);
  return sum_of(sum);
}

template <class Kind, class T = typename Kind::Element>
HWY_ATTR void forward(const AttentionHeadForward<T>& head, float* workspace) {
  const int64_t seq = head.seq_len;
  const int64_t num_keys = head.past + seq;
  const int64_t dim = head.dim;
  const int64_t v_dim = head.v_dim;
  const int64_t o_stride = up(v_dim, kCols);
  const int64_t key_units = units_of<Kind>(num_keys);
  Pieces pieces(workspace);
  float* keys = pieces.take(up(num_keys, kCols) * units_of<Kind>(dim));  // panels [dim, kCols] of keys
  float* values = pieces.take(key_units * o_stride);                     // panels [num_keys, kCols] of columns
  float* scores = pieces.take(kRows * kScoreStride);
  float* o = pieces.take(kRows * o_stride);
  float* packed = pieces.take(kRows * units_of<Kind>(dim));
  pack_panels<Kind>(head.k.data, head.k.stride, true, dim, num_keys, keys);
  pack_panels<Kind>(head.v.data, head.v.stride, false, num_keys, v_dim, values);
  const float factor = head.scale * kLog2e;

  for (int64_t h = 0; h < head.group; ++h) {
    for (int64_t i0 = 0, rows = 0; i0 < seq; i0 += rows) {
      rows = panel_height(seq - i0);
      const int64_t position = head.past + i0;
      const int64_t end = position + rows;  // keys that any of the rows sees
      const int64_t begin = first_key(head, position) / kCols * kCols;
      float most[kRows];
      float sum[kRows];
      std::fill_n(most, kRows, -INFINITY);
      std::fill_n(sum, kRows, 0.0F);
      for (int64_t j0 = begin; j0 < end; j0 += kAttentionKeys) {
        const int64_t cols = std::min(kAttentionKeys, end - j0);
        strided_rows<Kind>(dim, head.q.data + i0 * head.q.stride + h * dim, head.q.stride, rows,
                           keys + j0 * units_of<Kind>(dim), cols, scores, packed);
        for (int64_t i = 0; i < rows; ++i) {
          float* s = scores + i * kScoreStride;
          const int64_t first = std::clamp<int64_t>(first_key(head, position + i) - j0, 0, cols);
          const int64_t last = std::clamp<int64_t>(position + i + 1 - j0, first, cols);
          const float largest = std::max(most[i], max_row(s, first, last, factor));
          const float before = most[i] == largest ? 1.0F : std::exp2(most[i] - largest);
          most[i] = largest;
          auto* p = reinterpret_cast<T*>(s);
          sum[i] = sum[i] * before + exp_row(s, p, first, last, up(cols, kCols), factor, largest);
          if (j0 > begin && before != 1.0F) scale_to(o + i * o_stride, before, o + i * o_stride, v_dim);
        }
        row_panel<Kind, Along::rows>(units_of<Kind>(cols), bytes_of(scores), kScoreStride * int64_t{sizeof(float)},
                                     values + j0 / Kind::kPerUnit * kCols, key_units * kCols, rows, o_stride, o,
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
  exp_row(s, s, begin, end, width, factor, lse * kLog2e);
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
  float* rounded;   // ds of a row panel in bf16
  float* packed;    // one row panel
  float* delta;     // [kQueries]
};

// Rows of scores that were floats become units along the queries: of bf16, pairs of rows in place of the first.
template <class Kind>
HWY_ATTR void join_rows(float* s, int64_t rows) {
  if constexpr (Kind::kPerUnit == 2) {
    const hn::RebindToUnsigned<Floats> u;
    for (int64_t i = 0; i < rows; i += 2) {
      float* first = s + i * kScoreStride;
      for (int64_t j = 0; j < kScoreStride; j += kLanes) {
        const auto earlier = hn::ShiftRight<16>(nearest_bits(hn::LoadU(Floats(), first + j)));
        const Vec next = i + 1 < rows ? hn::LoadU(Floats(), first + kScoreStride + j) : hn::Zero(Floats());
        const auto later = hn::And(nearest_bits(next), hn::Set(u, 0xffff0000U));
        hn::StoreU(hn::BitCast(Floats(), hn::Or(earlier, later)), Floats(), first + j);
      }
    }
  }
}

// dq of queries [i0 + r, i0 + r + rows) from their ds over keys [from, from + cols).
template <class Kind>
HWY_ATTR void add_query_gradients(const BackwardPieces& w, int64_t r, int64_t rows, int64_t column, int64_t cols,
                                  int64_t from, int64_t seq, int64_t stride, bool accumulate) {
  const char* ds = bytes_of(w.ds + r * kScoreStride + column);
  int64_t ds_stride = kScoreStride * int64_t{sizeof(float)};
  if constexpr (Kind::kPerUnit == 2) {
    auto* rounded = reinterpret_cast<bf16*>(w.rounded);
    for (int64_t i = 0; i < rows; ++i) {
      const float* row = w.ds + (r + i) * kScoreStride + column;
      for (int64_t j = 0; j < up(cols, kLanes); j += kLanes) {
        store(load(row + j, kLanes), rounded + i * kScoreStride + j, kLanes);
      }
    }
    ds = bytes_of(rounded);
    ds_stride = kScoreStride * int64_t{sizeof(bf16)};
  }
  row_panel<Kind, Along::rows>(units_of<Kind>(cols), ds, ds_stride, w.key_cols + from / Kind::kPerUnit * kCols,
                               units_of<Kind>(seq) * kCols, rows, stride, w.dq + r * stride, stride, accumulate);
}

// dq, and the block's part of dk and dv, of queries [i0, i0 + rows) of head h.
template <class Kind, class T>
HWY_ATTR void backward_block(const AttentionHeadBackward<T>& head, const BackwardPieces& w, int64_t h, int64_t i0,
                             int64_t rows) {
  constexpr int64_t kPer = Kind::kPerUnit;
  static_assert(kRows % kPer == 0 && kQueries % kPer == 0);
  const int64_t seq = head.seq_len;
  const int64_t dim = head.dim;
  const int64_t v_dim = head.v_dim;
  const int64_t k_stride = up(dim, kCols);
  const int64_t v_stride = up(v_dim, kCols);
  const float factor = head.scale * kLog2e;
  const T* q = head.q.data + i0 * head.q.stride + h * dim;
  const T* d_o = head.d_o.data + i0 * head.d_o.stride + h * v_dim;
  const T* o = head.o.data + i0 * head.o.stride + h * v_dim;
  pack_panels<Kind>(q, head.q.stride, false, rows, dim, w.queries);
  pack_panels<Kind>(d_o, head.d_o.stride, false, rows, v_dim, w.d_o);
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
        const int64_t first = j0 + unseen;
        strided_rows<Kind>(dim, q + r * head.q.stride, head.q.stride, panel_rows, w.keys + first * units_of<Kind>(dim),
                           seen - unseen, p + unseen, w.packed);
        strided_rows<Kind>(v_dim, d_o + r * head.d_o.stride, head.d_o.stride, panel_rows,
                           w.values + first * units_of<Kind>(v_dim), seen - unseen, ds + unseen, w.packed);
      }
      for (int64_t i = 0; i < panel_rows; ++i) {
        const int64_t t = i0 + r + i;
        const int64_t first = std::clamp<int64_t>(first_key(head, t) - j0, 0, cols);
        const int64_t last = std::clamp<int64_t>(t + 1 - j0, first, cols);
        score_gradient(p + i * kScoreStride, ds + i * kScoreStride, first, last, kScoreStride, factor,
                       head.lse.data[t * head.lse.stride + h], w.delta[r + i]);
      }
      if (seen > unseen) {
        add_query_gradients<Kind>(w, r, panel_rows, unseen, seen - unseen, j0 + unseen, seq, k_stride, j0 > begin);
      }
    }
    join_rows<Kind>(w.p, rows);
    join_rows<Kind>(w.ds, rows);
    // Keys [j, j + kRows) are seen by queries from j on, up to the window's end. Those in the same unit have zeros.
    constexpr int64_t kStride = kScoreStride * kPer * int64_t{sizeof(float)};
    for (int64_t j = 0; j < cols; j += kRows) {
      const int64_t first = std::clamp<int64_t>(j0 + j - i0, 0, rows) / kPer;
      const int64_t last = units_of<Kind>(
          head.window > 0 ? std::clamp(j0 + j + kRows - 1 + head.window - i0, first * kPer, rows) : rows);
      const int64_t key_rows = std::min(kRows, cols - j);
      const int64_t panel = units_of<Kind>(rows) * kCols;
      row_panel<Kind, Along::depth>(last - first, bytes_of(w.p + first * kPer * kScoreStride + j), kStride,
                                    w.d_o + first * kCols, panel, key_rows, v_stride, w.dv + (j0 + j) * v_stride,
                                    v_stride, true);
      row_panel<Kind, Along::depth>(last - first, bytes_of(w.ds + first * kPer * kScoreStride + j), kStride,
                                    w.queries + first * kCols, panel, key_rows, k_stride, w.dk + (j0 + j) * k_stride,
                                    k_stride, true);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    scale_to(w.dq + i * k_stride, head.scale, head.dq.data + (i0 + i) * head.dq.stride + h * dim, dim);
  }
}

template <class Kind, class T = typename Kind::Element>
HWY_ATTR void backward(const AttentionHeadBackward<T>& head, float* workspace) {
  const int64_t seq = head.seq_len;
  const int64_t k_stride = up(head.dim, kCols);
  const int64_t v_stride = up(head.v_dim, kCols);
  const int64_t block = units_of<Kind>(kQueries);
  Pieces pieces(workspace);
  BackwardPieces w{};
  w.keys = pieces.take(up(seq, kCols) * units_of<Kind>(head.dim));
  w.values = pieces.take(up(seq, kCols) * units_of<Kind>(head.v_dim));
  w.key_cols = pieces.take(units_of<Kind>(seq) * k_stride);
  w.dk = pieces.take(seq * k_stride);
  w.dv = pieces.take(seq * v_stride);
  w.queries = pieces.take(block * k_stride);
  w.d_o = pieces.take(block * v_stride);
  w.dq = pieces.take(kQueries * k_stride);
  w.p = pieces.take(kQueries * kScoreStride);
  w.ds = pieces.take(kQueries * kScoreStride);
  w.rounded = Kind::kPerUnit == 2 ? pieces.take(kRows * kScoreStride / 2) : nullptr;
  w.packed = pieces.take(kRows * units_of<Kind>(std::max(head.dim, head.v_dim)));
  w.delta = pieces.take(kQueries);

  pack_panels<Kind>(head.k.data, head.k.stride, true, head.dim, seq, w.keys);
  pack_panels<Kind>(head.v.data, head.v.stride, true, head.v_dim, seq, w.values);
  pack_panels<Kind>(head.k.data, head.k.stride, false, seq, head.dim, w.key_cols);
  std::fill_n(w.dk, seq * k_stride, 0.0F);
  std::fill_n(w.dv, seq * v_stride, 0.0F);
  for (int64_t h = 0; h < head.group; ++h) {
    for (int64_t i0 = 0; i0 < seq; i0 += kQueries) backward_block<Kind>(head, w, h, i0, std::min(kQueries, seq - i0));
  }
  for (int64_t j = 0; j < seq; ++j) {
    scale_to(w.dk + j * k_stride, head.scale, head.dk.data + j * head.dk.stride, head.dim);
    scale_to(w.dv + j * v_stride, 1.0F, head.dv.data + j * head.dv.stride, head.v_dim);
  }
}

HWY_ATTR void forward_f32(const AttentionHeadForward<float>& head, float* workspace) {
  forward<Singles>(head, workspace);
}
HWY_ATTR void forward_bf16(const AttentionHeadForward<bf16>& head, float* workspace) {
  const WithoutDenormals guard;
  head.bf16_dot ? forward<DotPairs>(head, workspace) : forward<Pairs<false>>(head, workspace);
}
HWY_ATTR void backward_f32(const AttentionHeadBackward<float>& head, float* workspace) {
  backward<Singles>(head, workspace);
}
HWY_ATTR void backward_bf16(const AttentionHeadBackward<bf16>& head, float* workspace) {
  const WithoutDenormals guard;
  head.bf16_dot ? backward<DotPairs>(head, workspace) : backward<Pairs<false>>(head, workspace);
}

}  // namespace sluice::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace sluice::cpu {

HWY_EXPORT(forward_f32);
HWY_EXPORT(forward_bf16);
HWY_EXPORT(backward_f32);
HWY_EXPORT(backward_bf16);

void attention_forward(const AttentionHeadForward<float>& head, float* workspace) {
  HWY_DYNAMIC_DISPATCH(forward_f32)(head, workspace);
}
void attention_forward(const AttentionHeadForward<bf16>& head, float* workspace) {
  HWY_DYNAMIC_DISPATCH(forward_bf16)(head, workspace);
}
void attention_backward(const AttentionHeadBackward<float>& head, float* workspace) {
  HWY_DYNAMIC_DISPATCH(backward_f32)(head, workspace);
}
void attention_backward(const AttentionHeadBackward<bf16>& head, float* workspace) {
  HWY_DYNAMIC_DISPATCH(backward_bf16)(head, workspace);
}

}  // namespace sluice::cpu
#endif
