// Attention by plain tiled kernels, for any mask of attention_masks.h: what runs where cuDNN cannot (other types,
// masks, shapes, other GPUs), and what its results are compared with. Sums in the accumulator type; deterministic.
// A block for each tile of rows (attention_tiles.h), head and sequence. Included by .cu files only.
#pragma once

#include "device/cuda/attention_masks.h"
#include "device/cuda/attention_tiles.h"

namespace sluice::cuda {

template <class A, class Mask>
struct AttentionShape {
  int64_t seq_len, heads, group;  // `group` query heads share a key/value head
  int64_t past;                   // keys before the first query's, forward only
  A scale;
  Mask mask;
};

// Whether a pair of positions counts; tiles go on behind the sequence's end.
template <class Mask>
__device__ __forceinline__ bool counts(const Mask& mask, int64_t query, int64_t key, int64_t end) {
  return query < end && key < end && mask.visible(query, key);
}

// Where a block works: blocks count tiles fastest, then heads, then sequences. What takes longest should come first,
// which is the last queries, or the first keys.
struct Place {
  int64_t head;
  int64_t start;        // row the sequence starts at
  int64_t first, last;  // rows of the tile, from there
  int64_t rows;         // from `first` to the end of the sequence
  __device__ Place(int tile_rows, int64_t heads, int64_t seq_len, bool last_tile_first) {
    const int64_t tiles = ceil_div(seq_len, tile_rows), tile = blockIdx.x % tiles;
    head = blockIdx.x / tiles % heads;
    start = blockIdx.x / tiles / heads * seq_len;
    first = (last_tile_first ? tiles - 1 - tile : tile) * tile_rows;
    rows = seq_len - first;
    last = first + (rows < tile_rows ? rows : tile_rows) - 1;
  }
};

// Elements of shared memory: a tile of rows and one of partners, of keys' width and of values' width, and the weights.
template <class Tile>
constexpr int64_t forward_shared(int64_t dim, int64_t v_dim) {
  return int64_t{Tile::kTileRows} * (pitch_of(dim) + Tile::kWeightPitch) +
         int64_t{Tile::kTilePartners} * (pitch_of(dim) + pitch_of(v_dim));
}
template <class Tile>
constexpr int64_t backward_shared(int64_t dim, int64_t v_dim) {
  return forward_shared<Tile>(dim, v_dim) + int64_t{Tile::kTileRows} * pitch_of(v_dim);
}

template <class T, int kSpans, class Mask>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attention_forward(HeadRows<T> o, accumulator_t<T>* lse, HeadRows<const T> q, HeadRows<const T> k,
                      HeadRows<const T> v, AttentionShape<accumulator_t<T>, Mask> s) {
  using A = accumulator_t<T>;
  using Tile = QueryTiling<A, kSpans>;
  const Place at(Tile::kTileRows, s.heads, s.seq_len, true);
  const Mask mask = s.mask.of_sequence(at.start);
  const int64_t kv_head = at.head / s.group;
  const int64_t num_keys = s.past + s.seq_len, start = at.start / s.seq_len * num_keys;
  A* queries = dynamic_shared<A>();
  A* keys = queries + Tile::kTileRows * pitch_of(q.dim);
  A* values = keys + Tile::kTilePartners * pitch_of(q.dim);
  A* weights = values + Tile::kTilePartners * pitch_of(v.dim);
  load_tile<Tile::kTileRows>(queries, q, at.start + at.first, at.head, at.rows);

  // Of a row the largest score so far; this thread's share of the sum of weights; its columns of the weighted values.
  A most[Tile::kRows], sum[Tile::kRows] = {};
  Piece<A, kQuad> out[Tile::kRows][kSpans] = {};
  for (A& x : most) x = -INFINITY;
  const int64_t end = mask.end_key(s.past + at.last);
  for (int64_t first = mask.first_key(s.past + at.first); first < end; first += Tile::kTilePartners) {
    __syncthreads();
    load_tile<Tile::kTilePartners>(keys, k, start + first, kv_head, num_keys - first);
    load_tile<Tile::kTilePartners>(values, v, start + first, kv_head, num_keys - first);
    __syncthreads();
    A x[Tile::kRows][Tile::kPartners];
    multiply_tile(x, queries, keys, q.dim);
    for (int r = 0; r < Tile::kRows; ++r) {
      const int64_t query = s.past + at.first + group() + r * kGroups;
      A now = most[r];
      for (int p = 0; p < Tile::kPartners; ++p) {
        const int64_t key = first + member() + p * kMembers;
        const bool visible = counts(mask, query, key, num_keys);
        x[r][p] = visible ? mask.score(x[r][p] * s.scale) : -INFINITY;
        now = x[r][p] > now || x[r][p] != x[r][p] ? x[r][p] : now;
      }
      now = row_max(now);
      // While there is nothing to see: no difference of infinities.
      const A base = now == -INFINITY ? A{0} : now, factor = exp(most[r] - base);
      most[r] = now;
      sum[r] *= factor;
      for (int p = 0; p < Tile::kPartners; ++p) sum[r] += x[r][p] = exp(x[r][p] - base);
      for (auto& piece : out[r]) {
        for (A& y : piece.at) y *= factor;
      }
    }
    share_weights<Tile>(weights, x);
    add_weighted<Tile>(out, weights, values, v.dim);
  }
  A factor[Tile::kRows];
  for (int r = 0; r < Tile::kRows; ++r) {
    const int row = group() + r * kGroups;
    const A total = row_sum(sum[r]);
    factor[r] = 1 / total;
    if (member() == 0 && row < at.rows) lse[(at.start + at.first + row) * s.heads + at.head] = most[r] + log(total);
  }
  store_tile<Tile>(o, out, factor, at.start + at.first, at.head, at.rows);
}

// delta[t, h] = <do, o>: a warp for each row and head.
template <class T>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attention_delta(accumulator_t<T>* delta, HeadRows<const T> d_o, HeadRows<const T> o, int64_t rows, int64_t heads) {
  const int64_t pair = (int64_t{blockIdx.x} * kAttentionThreads + threadIdx.x) / kWarp;
  if (pair >= rows * heads) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const T* a = d_o.at(pair / heads, pair % heads);
  const T* b = o.at(pair / heads, pair % heads);
  accumulator_t<T> sum = 0;
  for (int c = lane; c < o.dim; c += kWarp) sum += load(a[c]) * load(b[c]);
  sum = warp_sum(sum);
  if (lane == 0) delta[pair] = sum;
}

// Of a query and a key, from their scaled product and the query's statistics: the weight p, and in place of dp the
// gradient of the scaled product.
template <class A, class Mask>
__device__ __forceinline__ A weight_and_gradient(A& dp, const Mask& mask, bool visible, A scaled, A lse, A delta) {
  const A p = visible ? exp(mask.score(scaled) - lse) : A{0};
  dp = visible ? p * (dp - delta) * mask.slope(scaled) : A{0};
  return p;
}

// dq = scale ds k
template <class T, int kSpans, class Mask>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attention_dq(HeadRows<T> dq, HeadRows<const T> d_o, const accumulator_t<T>* lse, const accumulator_t<T>* delta,
                 HeadRows<const T> q, HeadRows<const T> k, HeadRows<const T> v,
                 AttentionShape<accumulator_t<T>, Mask> s) {
  using A = accumulator_t<T>;
  using Tile = QueryTiling<A, kSpans>;
  const Place at(Tile::kTileRows, s.heads, s.seq_len, true);
  const Mask mask = s.mask.of_sequence(at.start);
  const int64_t kv_head = at.head / s.group;
  A* queries = dynamic_shared<A>();
  A* d_outs = queries + Tile::kTileRows * pitch_of(q.dim);
  A* keys = d_outs + Tile::kTileRows * pitch_of(v.dim);
  A* values = keys + Tile::kTilePartners * pitch_of(q.dim);
  A* weights = values + Tile::kTilePartners * pitch_of(v.dim);
  load_tile<Tile::kTileRows>(queries, q, at.start + at.first, at.head, at.rows);
  load_tile<Tile::kTileRows>(d_outs, d_o, at.start + at.first, at.head, at.rows);
  A row_lse[Tile::kRows], row_delta[Tile::kRows], factor[Tile::kRows];
  for (int r = 0; r < Tile::kRows; ++r) {
    const int row = group() + r * kGroups;
    const int64_t pair = (at.start + at.first + row) * s.heads + at.head;
    row_lse[r] = row < at.rows ? lse[pair] : A{0};
    row_delta[r] = row < at.rows ? delta[pair] : A{0};
    factor[r] = s.scale;
  }

  Piece<A, kQuad> sum[Tile::kRows][kSpans] = {};
  const int64_t end = mask.end_key(at.last);
  for (int64_t first = mask.first_key(at.first); first < end; first += Tile::kTilePartners) {
    __syncthreads();
    load_tile<Tile::kTilePartners>(keys, k, at.start + first, kv_head, s.seq_len - first);
    load_tile<Tile::kTilePartners>(values, v, at.start + first, kv_head, s.seq_len - first);
    __syncthreads();
    A x[Tile::kRows][Tile::kPartners], ds[Tile::kRows][Tile::kPartners];
    multiply_tile(x, queries, keys, q.dim);
    multiply_tile(ds, d_outs, values, v.dim);
    for (int r = 0; r < Tile::kRows; ++r) {
      const int64_t query = at.first + group() + r * kGroups;
      for (int p = 0; p < Tile::kPartners; ++p) {
        const int64_t key = first + member() + p * kMembers;
        const bool visible = counts(mask, query, key, s.seq_len);
        weight_and_gradient(ds[r][p], mask, visible, x[r][p] * s.scale, row_lse[r], row_delta[r]);
      }
    }
    share_weights<Tile>(weights, ds);
    add_weighted<Tile>(sum, weights, keys, q.dim);
  }
  store_tile<Tile>(dq, sum, factor, at.start + at.first, at.head, at.rows);
}

// dk = scale ds^T q, dv = p^T do: rows are keys, and partners the queries of every head that shares them.
template <class T, int kSpans, class Mask>
__global__ void __launch_bounds__(kAttentionThreads, 1)
    attention_dkv(HeadRows<T> dk, HeadRows<T> dv, HeadRows<const T> d_o, const accumulator_t<T>* lse,
                  const accumulator_t<T>* delta, HeadRows<const T> q, HeadRows<const T> k, HeadRows<const T> v,
                  AttentionShape<accumulator_t<T>, Mask> s) {
  using A = accumulator_t<T>;
  using Tile = KeyTiling<A, kSpans>;
  const Place at(Tile::kTileRows, s.heads / s.group, s.seq_len, false);
  const Mask mask = s.mask.of_sequence(at.start);
  A* keys = dynamic_shared<A>();
  A* values = keys + Tile::kTileRows * pitch_of(q.dim);
  A* queries = values + Tile::kTileRows * pitch_of(v.dim);
  A* d_outs = queries + Tile::kTilePartners * pitch_of(q.dim);
  A* weights = d_outs + Tile::kTilePartners * pitch_of(v.dim);
  load_tile<Tile::kTileRows>(keys, k, at.start + at.first, at.head, at.rows);
  load_tile<Tile::kTileRows>(values, v, at.start + at.first, at.head, at.rows);

  Piece<A, kQuad> sum_k[Tile::kRows][kSpans] = {}, sum_v[Tile::kRows][kSpans] = {};
  const int64_t end = mask.end_query(at.last, s.seq_len);
  for (int64_t head = at.head * s.group; head < (at.head + 1) * s.group; ++head) {
    for (int64_t first = mask.first_query(at.first); first < end; first += Tile::kTilePartners) {
      __syncthreads();
      load_tile<Tile::kTilePartners>(queries, q, at.start + first, head, s.seq_len - first);
      load_tile<Tile::kTilePartners>(d_outs, d_o, at.start + first, head, s.seq_len - first);
      __syncthreads();
      A p[Tile::kRows][Tile::kPartners], ds[Tile::kRows][Tile::kPartners];
      multiply_tile(p, keys, queries, q.dim);
      multiply_tile(ds, values, d_outs, v.dim);
      for (int i = 0; i < Tile::kPartners; ++i) {
        const int64_t query = first + member() + i * kMembers, pair = (at.start + query) * s.heads + head;
        const A query_lse = query < s.seq_len ? lse[pair] : A{0};
        const A query_delta = query < s.seq_len ? delta[pair] : A{0};
        for (int r = 0; r < Tile::kRows; ++r) {
          const int64_t key = at.first + group() + r * kGroups;
          const bool visible = counts(mask, query, key, s.seq_len);
          p[r][i] = weight_and_gradient(ds[r][i], mask, visible, p[r][i] * s.scale, query_lse, query_delta);
        }
      }
      share_weights<Tile>(weights, p);
      add_weighted<Tile>(sum_v, weights, d_outs, v.dim);
      share_weights<Tile>(weights, ds);
      add_weighted<Tile>(sum_k, weights, queries, q.dim);
    }
  }
  A factor[Tile::kRows], one[Tile::kRows];
  for (int r = 0; r < Tile::kRows; ++r) {
    factor[r] = s.scale;
    one[r] = 1;
  }
  store_tile<Tile>(dk, sum_k, factor, at.start + at.first, at.head, at.rows);
  store_tile<Tile>(dv, sum_v, one, at.start + at.first, at.head, at.rows);
}

}  // namespace sluice::cuda
