// Memory of a GPU, and pinned memory of the host.
#pragma once

#include "tensor/memory.h"

namespace sluice::cuda {

// cudaMalloc: the first chunk of each arena is taken before the first step, so a step allocates nothing.
class DeviceMemory final : public Memory {
 public:
  explicit DeviceMemory(int ordinal) : ordinal_(ordinal) {}
  bool real() const override { return true; }
  bool host_visible() const override { return false; }

 private:
  void* take(size_t bytes) override;
  void give_back(void* data, size_t bytes) override;
  int ordinal_;
};

// Host memory that kernels read and write in place: for tests, where the host looks at every tensor.
class PinnedMemory final : public Memory {
 public:
  bool real() const override { return true; }

 private:
  void* take(size_t bytes) override;
  void give_back(void* data, size_t bytes) override;
};

}  // namespace sluice::cuda
