// Single-threaded attention of one sequence and one key/value head with its group of query heads, f32.
#pragma once

#include <cstdint>

namespace sluice::cpu {

// Rows of a tensor, `stride` floats apart.
struct RowsIn {
  const float* data = nullptr;
  int64_t stride = 0;
};
struct RowsOut {
  float* data = nullptr;
  int64_t stride = 0;
};

struct AttentionHead {
  int64_t seq_len = 0;  // queries
  int64_t past = 0;     // keys before the first query's; forward only
  int64_t window = 0;   // 0: all earlier keys
  int64_t group = 0;    // query heads, side by side in a row of q, o and lse
  int64_t dim = 0;
  int64_t v_dim = 0;
  float scale = 1;
  RowsIn q;  // first query head of the group
  RowsIn k;
  RowsIn v;
};

struct AttentionHeadForward : AttentionHead {
  RowsOut o;
  RowsOut lse;
};

struct AttentionHeadBackward : AttentionHead {
  RowsOut dq;
  RowsOut dk;
  RowsOut dv;
  RowsIn d_o;
  RowsIn o;
  RowsIn lse;
};

// `workspace` holds attention_workspace() bytes (scratch.h), aligned to 64.
void attention_forward(const AttentionHeadForward& head, float* workspace);
void attention_backward(const AttentionHeadBackward& head, float* workspace);

}  // namespace sluice::cpu
