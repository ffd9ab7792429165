// The backends operations are tested on. Each is held to `ref`.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice::test {

struct BackendCase {
  std::string name;
  // A fresh backend that keeps alive what it stands on (its pool), and memory for it that the host may touch.
  std::function<std::shared_ptr<Backend>()> make;
  std::function<std::unique_ptr<Memory>()> memory = [] { return std::make_unique<HostMemory>(); };
  // Why it cannot run here; then its tests are skipped.
  std::string missing = {};
  friend std::ostream& operator<<(std::ostream& out, const BackendCase& c) { return out << c.name; }
};

BackendCase ref_backend();
// The fast path on a pool of so many threads.
BackendCase cpu_backend(int threads);
// CUDA kernels on the CPU, and on the GPU if the build has them.
BackendCase emulated_backend();
BackendCase cuda_backend();
// All of them, `ref` first.
std::vector<BackendCase> backends();

}  // namespace sluice::test
