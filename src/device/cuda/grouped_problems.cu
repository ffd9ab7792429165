#include <algorithm>

#include "device/cuda/device.h"
#include "device/cuda/grouped_problems.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 1024;  // at most

// TMA wants 16-byte strides and addresses; widths in whole pieces make the strides of the weights so, too.
constexpr int64_t kAlignment = 8;

bool fits(const Tensor& t, DType dtype) {
  const bool even = t.stride() % kAlignment == 0 && t.dim(t.rank() - 1) % kAlignment == 0;
  const bool sized = t.dim(0) <= INT32_MAX && t.numel() > 0;
  return t.dtype() == dtype && even && sized && reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0;
}

// Cuts scratch into the arrays. Eight-byte elements come first.
std::optional<GroupedProblems> lay_out(const Tensor& scratch, int64_t num_experts) {
  if (!scratch.defined() || scratch.bytes() < gpu::grouped_workspace(num_experts)) return std::nullopt;
  static_assert(6 * sizeof(int64_t) + 3 * sizeof(int32_t) <= gpu::kGroupedBytesPerExpert);
  auto* const base = static_cast<unsigned char*>(scratch.raw());
  const auto array = [&](int64_t i) { return base + i * num_experts * 8; };
  return GroupedProblems{.num_experts = num_experts,
                         .a = reinterpret_cast<const void**>(array(0)),
                         .b = reinterpret_cast<const void**>(array(1)),
                         .d = reinterpret_cast<void**>(array(2)),
                         .a_stride = reinterpret_cast<int64_t*>(array(3)),
                         .b_stride = reinterpret_cast<int64_t*>(array(4)),
                         .d_stride = reinterpret_cast<int64_t*>(array(5)),
                         .sizes = reinterpret_cast<int32_t*>(array(6)),
                         .workspace = base + gpu::grouped_workspace(num_experts) - gpu::kGroupedTensorMapBytes};
}

// Where an operand of an expert begins, in bytes, and how its rows lie.
struct Operand {
  unsigned char* data;
  int64_t per_row, per_expert;
  int64_t stride;
};

Operand by_row(const Tensor& t) {
  const auto size = static_cast<int64_t>(size_of(t.dtype()));
  return {static_cast<unsigned char*>(t.raw()), t.stride() * size, 0, t.stride()};
}
Operand by_expert(const Tensor& t) {
  const auto size = static_cast<int64_t>(size_of(t.dtype()));
  return {static_cast<unsigned char*>(t.raw()), 0, t.stride() * size, t.dim(2)};
}

// A thread writes the problem of an expert, whose rows are the m of a product, or the k (then `m` is given).
__global__ void __launch_bounds__(kThreads)
    write_problems(GroupedProblems problems, Operand a, Operand b, Operand d, int32_t m, int32_t n, int32_t k,
                   bool rows_are_k, const int32_t* offsets, int64_t num_rows, Fault* fault) {
  const auto clamped = [&](int64_t at, int64_t least) { return at < least ? least : at > num_rows ? num_rows : at; };
  for (int64_t e = threadIdx.x; e < problems.num_experts; e += blockDim.x) {
    const int64_t from = offsets[e], to = offsets[e + 1];
    if (from < 0 || from > num_rows) report(fault, FaultKind::offset, from, num_rows);
    if (to < from || to > num_rows) report(fault, FaultKind::offset, to, num_rows);
    const int64_t begin = clamped(from, 0);
    const auto rows = static_cast<int32_t>(clamped(to, begin) - begin);
    problems.a[e] = a.data + begin * a.per_row + e * a.per_expert;
    problems.b[e] = b.data + begin * b.per_row + e * b.per_expert;
    problems.d[e] = d.data + begin * d.per_row + e * d.per_expert;
    problems.a_stride[e] = a.stride;
    problems.b_stride[e] = b.stride;
    problems.d_stride[e] = d.stride;
    problems.sizes[3 * e] = rows_are_k && rows > 0 ? m : rows;
    problems.sizes[3 * e + 1] = n;
    problems.sizes[3 * e + 2] = rows_are_k ? rows : k;
  }
}

int32_t narrow(int64_t size) {
  return static_cast<int32_t>(size);
}

}  // namespace

std::optional<GroupedProblems> make_problems(Device& device, const GroupedGemm& op, const Tensor& scratch) {
  if (!fits(op.y, DType::bf16) || !fits(op.x, DType::bf16) || !fits(op.w, DType::bf16)) return std::nullopt;
  const auto problems = lay_out(scratch, op.w.dim(0));
  if (!problems) return problems;
  launch(GroupedGemm::name, write_problems, blocks(1), row_threads(problems->num_experts, kThreads), 0, device.stream(),
         *problems, by_row(op.x), by_expert(op.w), by_row(op.y), 0, narrow(op.n()), narrow(op.k()), false,
         op.offsets.data<int32_t>(), op.x.dim(0), device.fault());
  return problems;
}

std::optional<GroupedProblems> make_problems(Device& device, const GroupedGemmWeight& op, const Tensor& scratch) {
  if (!fits(op.dw, DType::f32) || !fits(op.dy, DType::bf16) || !fits(op.x, DType::bf16)) return std::nullopt;
  const auto problems = lay_out(scratch, op.dw.dim(0));
  if (!problems) return problems;
  launch(GroupedGemmWeight::name, write_problems, blocks(1), row_threads(problems->num_experts, kThreads), 0,
         device.stream(), *problems, by_row(op.dy), by_row(op.x), by_expert(op.dw), narrow(op.dw.dim(1)),
         narrow(op.dw.dim(2)), 0, true, op.offsets.data<int32_t>(), op.dy.dim(0), device.fault());
  return problems;
}

}  // namespace sluice::cuda
