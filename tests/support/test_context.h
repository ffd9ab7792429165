// TestContext: a Context on a backend of its own with arenas for every lifetime, and one for what the test itself puts
// in (inputs, parameters, gradient buffers). reset() gives back all but the latter; with SLUICE_DEBUG_MEMORY that, and
// the end, check the sentinels behind every tensor.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "device/context.h"
#include "support/backends.h"
#include "support/host_tensor.h"

namespace sluice::test {

class TestContext {
 public:
  explicit TestContext(DType dtype, const BackendCase& backend = ref_backend())
      : make_memory_(backend.memory), memory_(backend.memory()), backend_(backend.make()), context_(*backend_, dtype) {
    context_.bind({.activations = &activations_, .deferred = &deferred_, .records = &records_, .scratch = &scratch_});
  }

  ~TestContext() {
    try {
      reset();
      own_.release_all();
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
  TestContext(const TestContext&) = delete;
  TestContext& operator=(const TestContext&) = delete;

  Context& operator*() { return context_; }
  Context* operator->() { return &context_; }
  DType dtype() const { return context_.dtype(); }
  DType accumulator() const { return context_.accumulator(); }
  // For arenas of the test's own.
  std::unique_ptr<Memory> more_memory() const { return make_memory_(); }

  // Tensors that live as long as the context, poisoned.
  Tensor empty(Shape shape, DType dtype) {
    const Tensor t = own_.empty(shape, dtype);
    poison(t);
    return t;
  }
  Tensor empty(Shape shape) { return empty(shape, dtype()); }
  // A view of `shape` inside a wider matrix, so that its rows have gaps.
  Tensor strided(Shape shape, DType dtype) {
    const int64_t gap = 3;
    const Tensor wide = empty({shape[0], shape.inner() + gap}, dtype);
    return {wide.raw(), shape, dtype, wide.stride()};
  }
  Tensor random(Shape shape, uint64_t seed, double scale = 1, double center = 0) {
    return random_as(dtype(), shape, seed, scale, center);
  }
  Tensor random_as(DType type, Shape shape, uint64_t seed, double scale = 1, double center = 0) {
    const Tensor t = empty(shape, type);
    randomize(t, seed, scale, center);
    return t;
  }
  Tensor of(Shape shape, DType dtype, std::initializer_list<double> values) {
    const Tensor t = empty(shape, dtype);
    assign(t, values);
    return t;
  }
  Tensor ints(Shape shape, std::initializer_list<double> values) { return of(shape, DType::i32, values); }
  Tensor copy(const Tensor& x) {
    const Tensor t = empty(x.shape(), x.dtype());
    assign(t, values_of(x));
    return t;
  }

  // Ends a step: everything modules took is given back.
  void reset() {
    for (Arena* arena : {&activations_, &deferred_, &records_, &scratch_}) arena->release_all();
  }

 private:
  std::function<std::unique_ptr<Memory>()> make_memory_;
  std::unique_ptr<Memory> memory_;
  Arena own_{*memory_, MemoryKind::weights, "test"};
  Arena activations_{*memory_, MemoryKind::activations, "activations"};
  Arena deferred_{*memory_, MemoryKind::activations, "deferred"};
  Arena records_{*memory_, MemoryKind::activations, "records"};
  Arena scratch_{*memory_, MemoryKind::scratch, "scratch"};
  std::shared_ptr<Backend> backend_;
  Context context_;
};

}  // namespace sluice::test
