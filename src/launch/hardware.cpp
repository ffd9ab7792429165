#include "launch/hardware.h"

#include "base/log.h"
#include "comm/cuda/cuda_mover.h"
#include "comm/nccl/nccl.h"
#include "device/cpu/cpu_backend.h"
#include "device/cuda/cuda.h"
#include "device/pool.h"
#include "device/ref/ref_backend.h"
#include "machine/machine_info.h"

namespace sluice {

bool own_gpus(DeviceKind device, int ranks) {
  return device == DeviceKind::cuda && ranks > 1 && nccl::available() && std::ssize(cuda::find_gpus().list) >= ranks;
}

namespace {

Hardware gpus_for(int ranks) {
  const cuda::Gpus gpus = cuda::find_gpus();
  if (!gpus.why_none.empty()) throw no_gpu(gpus.why_none);
  if (own_gpus(DeviceKind::cuda, ranks)) {
    return {.backend = [](int rank) { return cuda::make_backend({.ordinal = rank}); },
            .memory = [](int rank) { return cuda::make_device_memory(rank); },
            .nccl = true};
  }
  if (gpus.list.size() > 1 && ranks > 1) {
    log::info("{} ranks share the first of {} GPUs: {}", ranks, gpus.list.size(),
              nccl::available() ? "there is not one for each" : "sluice was built without NCCL");
  }
  constexpr int kGpu = 0;
  return {.backend = [](int) { return cuda::make_backend({.ordinal = kGpu}); },
          .memory = [](int) { return cuda::make_device_memory(kGpu); },
          .mover = [](int) { return cuda::make_mover(kGpu); }};
}

}  // namespace

Hardware hardware_of(DeviceKind device, int threads, int ranks) {
  const auto host = [](int) { return std::make_unique<HostMemory>(); };
  switch (device) {
    case DeviceKind::ref:
      return {.backend = [](int) { return std::make_unique<RefBackend>(); }, .memory = host};
    case DeviceKind::cuda:
      return gpus_for(ranks);
    case DeviceKind::cpu:
      break;
    case DeviceKind::meta:
      require(false, "a session on meta");
  }
  const auto pool = std::make_shared<Pool>(threads);
  return {.backend = [pool](int) { return std::make_unique<CpuBackend>(*pool); }, .memory = host};
}

Target target_of(DeviceKind device, int threads) {
  if (device == DeviceKind::cuda) return {.row_align = cuda::CudaOptions{}.row_align, .platform = Platform::gpu};
  return {.row_align = 1, .workers = device == DeviceKind::ref ? 1 : threads};
}

}  // namespace sluice
