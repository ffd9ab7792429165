// Single-threaded attention of one sequence and one key/value head with its group of query heads, f32 or bf16 (T).
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::cpu {

// Rows of a tensor, `stride` elements apart.
template <class T>
struct Rows {
  T* data = nullptr;
  int64_t stride = 0;
};

template <class T>
struct AttentionHead {
  int64_t seq_len = 0;  // queries
  int64_t past = 0;     // keys before the first query's; forward only
  int64_t window = 0;   // 0: all earlier keys
  int64_t group = 0;    // query heads, side by side in a row of q, o and lse
  int64_t dim = 0;
  int64_t v_dim = 0;
  float scale = 1;
  Rows<const T> q;  // first query head of the group
  Rows<const T> k;
  Rows<const T> v;
  bool bf16_dot = false;  // the processor's instruction for products of bf16 may be used (bf16_dot.h)
};

template <class T>
struct AttentionHeadForward : AttentionHead<T> {
  Rows<T> o;
  Rows<float> lse;
};

template <class T>
struct AttentionHeadBackward : AttentionHead<T> {
  Rows<T> dq;
  Rows<T> dk;
  Rows<T> dv;
  Rows<const T> d_o;
  Rows<const T> o;
  Rows<const float> lse;
};

// `workspace` holds attention_workspace() bytes (scratch.h), aligned to 64. Scores and sums are f32; where T is bf16,
// probabilities and their gradients are rounded before they are multiplied.
void attention_forward(const AttentionHeadForward<float>& head, float* workspace);
void attention_forward(const AttentionHeadForward<bf16>& head, float* workspace);
void attention_backward(const AttentionHeadBackward<float>& head, float* workspace);
void attention_backward(const AttentionHeadBackward<bf16>& head, float* workspace);

}  // namespace sluice::cpu
