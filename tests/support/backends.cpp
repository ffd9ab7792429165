#include "support/backends.h"

#include "device/cpu/cpu_backend.h"
#include "device/ref/ref_backend.h"

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

std::vector<BackendCase> backends() {
  return {ref_backend(), cpu_backend(2)};
}

}  // namespace sluice::test
