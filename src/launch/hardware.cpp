#include "launch/hardware.h"

#include "base/log.h"
#include "comm/cuda/cuda_mover.h"
#include "comm/nccl/nccl.h"
#include "device/cpu/cpu_backend.h"
#include "device/cuda/cuda.h"
#include "device/pool.h"
#include "device/ref/ref_backend.h"
#include "launch/near_gpu.h"
#include "machine/machine_info.h"

namespace sluice {

bool own_gpus(DeviceKind device, int ranks) {
  if (device != DeviceKind::cuda || ranks == 1 || !nccl::available()) return false;
  cuda::load_kernels_first();
  return std::ssize(cuda::find_gpus().list) >= ranks;
}

namespace {

cuda::Gpus gpus_there() {
  cuda::Gpus gpus = cuda::find_gpus();
  if (!gpus.why_none.empty()) throw no_gpu(gpus.why_none);
  return gpus;
}

// Each rank has one, by `gpu_of`.
Hardware with_gpus(const std::vector<cuda::Gpu>& list, const std::function<int(int rank)>& gpu_of) {
  const auto near = [list, gpu_of](int rank) {
    return launch::processors_near(list[static_cast<size_t>(gpu_of(rank))].pci);
  };
  return {.backend = [gpu_of](int rank) { return cuda::make_backend({.ordinal = gpu_of(rank)}); },
          .memory = [gpu_of](int rank) { return cuda::make_device_memory(gpu_of(rank)); },
          .processors = near};
}

Hardware gpus_for(int ranks) {
  if (ranks > 1) cuda::load_kernels_first();
  const cuda::Gpus gpus = gpus_there();
  if (own_gpus(DeviceKind::cuda, ranks)) {
    Hardware hardware = with_gpus(gpus.list, [](int rank) { return rank; });
    hardware.gpu_ranks = [](int count, Courier* /*none*/, double timeout_s, const auto& body) {
      nccl::run_ranks(count, {.timeout_s = timeout_s}, body);
    };
    return hardware;
  }
  if (gpus.list.size() > 1 && ranks > 1) {
    log::info("{} ranks share the first of {} GPUs: {}", ranks, gpus.list.size(),
              nccl::available() ? "there is not one for each" : "sluice was built without NCCL");
  }
  constexpr int kGpu = 0;
  Hardware hardware = with_gpus(gpus.list, [](int) { return kGpu; });
  hardware.mover = [](int) { return cuda::make_mover(kGpu); };
  return hardware;
}

Hardware gpus_for(Courier& courier, const launch::LocalRanks& local) {
  if (!nccl::available()) {
    throw user_error("runtime.device cuda in several processes needs NCCL, which sluice was built without")
        .advise("install NCCL and build again (nccl.h and libnccl beside the CUDA toolkit), or run one process");
  }
  cuda::load_kernels_first();
  const cuda::Gpus gpus = gpus_there();
  const std::vector<int> chosen = launch::choose_gpus(static_cast<int>(gpus.list.size()), local);
  launch::ProcessGpus mine{.nccl = nccl::version(), .seen = static_cast<int>(gpus.list.size())};
  for (const int gpu : chosen) {
    const cuda::Gpu& own = gpus.list[static_cast<size_t>(gpu)];
    mine.own.push_back({.uuid = own.uuid, .pci = own.pci});
  }
  std::vector<launch::ProcessGpus> all;
  for (const std::string& text : courier.exchange(launch::to_text(mine))) all.push_back(launch::from_text(text));
  launch::check_same_nccl(courier.members(), all);
  launch::check_apart(courier.members(), all);

  const int first = courier.self().first_rank;
  Hardware hardware =
      with_gpus(gpus.list, [chosen, first](int rank) { return chosen[static_cast<size_t>(rank - first)]; });
  hardware.gpu_ranks = [chosen](int /*ranks*/, Courier* others, double timeout_s, const auto& body) {
    nccl::run_ranks(*others, chosen, {.timeout_s = timeout_s}, body);
  };
  return hardware;
}

Hardware on_host(DeviceKind device, int threads) {
  require(device != DeviceKind::meta, "a session on meta");
  const auto memory = [](int) { return std::make_unique<HostMemory>(); };
  if (device == DeviceKind::ref) {
    return {.backend = [](int) { return std::make_unique<RefBackend>(); }, .memory = memory};
  }
  const auto pool = std::make_shared<Pool>(threads);
  return {.backend = [pool](int) { return std::make_unique<CpuBackend>(*pool); }, .memory = memory};
}

}  // namespace

Hardware hardware_of(DeviceKind device, int threads, int ranks) {
  return device == DeviceKind::cuda ? gpus_for(ranks) : on_host(device, threads);
}

Hardware hardware_of(DeviceKind device, int threads, Courier& courier, const launch::LocalRanks& local) {
  return device == DeviceKind::cuda ? gpus_for(courier, local) : on_host(device, threads);
}

Target target_of(DeviceKind device, int threads) {
  if (device == DeviceKind::cuda) return {.row_align = cuda::CudaOptions{}.row_align, .platform = Platform::gpu};
  return {.row_align = 1, .workers = device == DeviceKind::ref ? 1 : threads};
}

}  // namespace sluice
