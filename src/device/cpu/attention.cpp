#include "device/cpu/attention_kernel.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/scratch.h"
#include "device/cpu/tiles.h"

namespace sluice {

using namespace cpu;

namespace {

// Head `head` of rows from `start` on.
template <class Rows>
Rows rows_of(const Tensor& t, int64_t start, int64_t head) {
  return {t.data<float>() + start * t.stride() + head * (t.rank() == 3 ? t.dim(2) : 1), t.stride()};
}

template <class Op>
void describe_head(const Op& op, int64_t start, int64_t kv_head, AttentionHead& head) {
  const int64_t first_key = start / op.spec.seq_len * op.spec.keys();
  head.seq_len = op.spec.seq_len;
  head.past = op.spec.past;
  head.window = op.spec.window;
  head.group = op.q.dim(1) / op.k.dim(1);
  head.dim = op.q.dim(2);
  head.v_dim = op.v.dim(2);
  head.scale = static_cast<float>(op.spec.scale);
  head.q = rows_of<RowsIn>(op.q, start, kv_head * head.group);
  head.k = rows_of<RowsIn>(op.k, first_key, kv_head);
  head.v = rows_of<RowsIn>(op.v, first_key, kv_head);
}

// Calls f(first row of the sequence, key/value head, worker) for each of them: one chunk each, so that the sums over a
// group's query heads have one owner.
template <class Op, class F>
void for_each_head(Pool& pool, const Op& op, F&& f) {
  const int64_t kv_heads = op.k.dim(1);
  const int64_t sequences = op.q.dim(0) / op.spec.seq_len;
  pool.run(sequences * kv_heads,
           [&](int64_t chunk, int worker) { f(chunk / kv_heads * op.spec.seq_len, chunk % kv_heads, worker); });
}

}  // namespace

KernelSet CpuBackend::execute(const AttentionForward& op, const Tensor& scratch) {
  if (op.q.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  for_each_head(pool_, op, [&](int64_t start, int64_t kv_head, int worker) {
    AttentionHeadForward head;
    describe_head(op, start, kv_head, head);
    head.o = rows_of<RowsOut>(op.o, start, kv_head * head.group);
    head.lse = rows_of<RowsOut>(op.lse, start, kv_head * head.group);
    attention_forward(head, workspace(scratch, attention_workspace(op), worker));
  });
  return Kernel::simd;
}

KernelSet CpuBackend::execute(const AttentionBackward& op, const Tensor& scratch) {
  if (op.q.dtype() != DType::f32) return RefBackend::execute(op, scratch);
  for_each_head(pool_, op, [&](int64_t start, int64_t kv_head, int worker) {
    AttentionHeadBackward head;
    describe_head(op, start, kv_head, head);
    head.dq = rows_of<RowsOut>(op.dq, start, kv_head * head.group);
    head.dk = rows_of<RowsOut>(op.dk, start, kv_head);
    head.dv = rows_of<RowsOut>(op.dv, start, kv_head);
    head.d_o = rows_of<RowsIn>(op.d_o, start, kv_head * head.group);
    head.o = rows_of<RowsIn>(op.o, start, kv_head * head.group);
    head.lse = rows_of<RowsIn>(op.lse, start, kv_head * head.group);
    attention_backward(head, workspace(scratch, attention_workspace(op), worker));
  });
  return Kernel::simd;
}

}  // namespace sluice
