#include "support/backends.h"

#include "device/cpu/cpu_backend.h"
#include "device/cuda/cuda.h"
#include "device/ref/ref_backend.h"
#include "emulation/emulated.h"

namespace sluice::test {

BackendCase ref_backend() {
  return {"ref", [] { return std::make_shared<RefBackend>(); }};
}

BackendCase cpu_backend(int threads) {
  struct Owner {
    explicit Owner(int count) : pool(count) {}
    Pool pool;
    CpuBackend backend{pool};
  };
  return {"cpu", [threads] {
            const auto owner = std::make_shared<Owner>(threads);
            return std::shared_ptr<Backend>(owner, &owner->backend);
          }};
}

BackendCase emulated_backend() {
  constexpr int kRowAlign = 4;
  return {"cuda_emulated",
          [] { return std::shared_ptr<Backend>(emulation::make_backend(kRowAlign, /*synchronous=*/true)); }};
}

BackendCase cuda_backend() {
  return {"cuda", [] { return std::shared_ptr<Backend>(cuda::make_backend({.synchronous = true})); },
          [] { return cuda::make_pinned_memory(); }, cuda::find_gpus().why_none};
}

std::vector<BackendCase> backends() {
  return {ref_backend(), cpu_backend(2), emulated_backend(), cuda_backend()};
}

}  // namespace sluice::test
