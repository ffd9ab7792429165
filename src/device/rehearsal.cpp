#include "device/rehearsal.h"

#include <algorithm>
#include <bit>
#include <memory>

#include "device/scratch.h"

namespace sluice {

namespace {

constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// From its first element to its last.
size_t extent_of(const Tensor& t) {
  const int64_t rows = t.rank() == 0 ? 1 : t.dim(0);
  return t.dense() ? t.bytes() : static_cast<size_t>(rows * t.stride()) * size_of(t.dtype());
}

template <class O>
size_t bytes_of(const O& op, const Target& target) {
  size_t bytes = aligned(scratch_of(op, target));
  op.visit([&](std::string_view, const Tensor& t, Access) { bytes += t.defined() ? aligned(extent_of(t)) : 0; });
  return bytes;
}

// On the memory at `data`.
template <class O>
void run_once(O op, Backend& backend, Stream& stream, char* data) {
  const auto take = [&](size_t bytes) {
    char* const at = data;
    data += aligned(bytes);
    return at;
  };
  op.visit([&](std::string_view, const Tensor& t, Access) {
    // `op` is this function's own.
    if (t.defined()) const_cast<Tensor&>(t) = Tensor(take(extent_of(t)), t.shape(), t.dtype(), t.stride());
  });
  Tensor scratch;
  if (const size_t bytes = scratch_of(op, backend.target()); bytes > 0) {
    scratch = Tensor(take(bytes), {static_cast<int64_t>(bytes)}, DType::u8);
  }
  backend.run(op, scratch, stream, {});
}

int64_t bits(double value) {
  return std::bit_cast<int64_t>(value);
}

}  // namespace

template <class O>
void Rehearsal::keep(std::vector<O>& list, const O& op, std::initializer_list<int64_t> constants) {
  std::vector<int64_t> key = {static_cast<int64_t>(id_of<O>().kind)};
  for (const char letter : O::name) key.push_back(letter);
  key.insert(key.end(), constants);
  op.visit([&](std::string_view, const Tensor& t, Access) {
    key.push_back(t.defined() ? static_cast<int64_t>(t.dtype()) : -1);
    if (!t.defined()) return;
    key.push_back(t.rank() > 1 ? t.stride() : 0);
    for (int i = 0; i < t.rank(); ++i) key.push_back(t.dim(i));
  });
  if (known_.insert(std::move(key)).second) list.push_back(op);
}

void Rehearsal::add(const Gemm& op) {
  keep(products_, op, {op.trans_a, op.trans_b, op.accumulate});
}

void Rehearsal::add(const AttentionForward& op) {
  keep(forward_, op, {op.spec.seq_len, op.spec.window, bits(op.spec.scale), op.spec.past});
}

void Rehearsal::add(const AttentionBackward& op) {
  keep(backward_, op, {op.spec.seq_len, op.spec.window, bits(op.spec.scale), op.spec.past});
}

void Rehearsal::run(Backend& backend, Memory& memory) const {
  size_t most = 0;
  const auto each = [&](const auto& see) {
    for (const Gemm& op : products_) see(op);
    for (const AttentionForward& op : forward_) see(op);
    for (const AttentionBackward& op : backward_) see(op);
  };
  each([&](const auto& op) { most = std::max(most, bytes_of(op, backend.target())); });
  if (most == 0) return;
  const auto give_back = [&](void* data) { memory.release(MemoryKind::scratch, data, most); };
  const std::unique_ptr<void, decltype(give_back)> held(memory.allocate(MemoryKind::scratch, most), give_back);
  Stream stream(backend.compute_stream());
  backend.run(Fill{.x = Tensor(held.get(), {static_cast<int64_t>(most / sizeof(float))}, DType::f32)}, {}, stream, {});
  each([&](const auto& op) { run_once(op, backend, stream, static_cast<char*>(held.get())); });
  backend.synchronize();
}

}  // namespace sluice
