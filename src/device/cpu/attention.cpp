#include <type_traits>

#include "device/cpu/attention_kernel.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/scratch.h"
#include "device/cpu/storage.h"
#include "device/cpu/tiles.h"

namespace sluice {

using namespace cpu;

namespace {

// Head `head` of rows from `start` on.
template <class T>
Rows<T> rows_of(const Tensor& t, int64_t start, int64_t head) {
  return {t.data<std::remove_const_t<T>>() + start * t.stride() + head * (t.rank() == 3 ? t.dim(2) : 1), t.stride()};
}

template <class T, class Op>
void describe_head(const Op& op, int64_t start, int64_t kv_head, bool bf16_dot, AttentionHead<T>& head) {
  const int64_t first_key = start / op.spec.seq_len * op.spec.keys();
  head.seq_len = op.spec.seq_len;
  head.past = op.spec.past;
  head.window = op.spec.window;
  head.group = op.q.dim(1) / op.k.dim(1);
  head.dim = op.q.dim(2);
  head.v_dim = op.v.dim(2);
  head.scale = static_cast<float>(op.spec.scale);
  head.q = rows_of<const T>(op.q, start, kv_head * head.group);
  head.k = rows_of<const T>(op.k, first_key, kv_head);
  head.v = rows_of<const T>(op.v, first_key, kv_head);
  head.bf16_dot = bf16_dot;
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
  const bool fast = dispatch_storage(op.q.dtype(), [&]<class T>(T) {
    for_each_head(pool_, op, [&](int64_t start, int64_t kv_head, int worker) {
      AttentionHeadForward<T> head;
      describe_head<T>(op, start, kv_head, bf16_dot_, head);
      head.o = rows_of<T>(op.o, start, kv_head * head.group);
      head.lse = rows_of<float>(op.lse, start, kv_head * head.group);
      attention_forward(head, workspace(scratch, attention_workspace(op), worker));
    });
  });
  return fast ? Kernel::simd : RefBackend::execute(op, scratch);
}

KernelSet CpuBackend::execute(const AttentionBackward& op, const Tensor& scratch) {
  const bool fast = dispatch_storage(op.q.dtype(), [&]<class T>(T) {
    for_each_head(pool_, op, [&](int64_t start, int64_t kv_head, int worker) {
      AttentionHeadBackward<T> head;
      describe_head<T>(op, start, kv_head, bf16_dot_, head);
      head.dq = rows_of<T>(op.dq, start, kv_head * head.group);
      head.dk = rows_of<T>(op.dk, start, kv_head);
      head.dv = rows_of<T>(op.dv, start, kv_head);
      head.d_o = rows_of<const T>(op.d_o, start, kv_head * head.group);
      head.o = rows_of<const T>(op.o, start, kv_head * head.group);
      head.lse = rows_of<const float>(op.lse, start, kv_head * head.group);
      attention_backward(head, workspace(scratch, attention_workspace(op), worker));
    });
  });
  return fast ? Kernel::simd : RefBackend::execute(op, scratch);
}

}  // namespace sluice
