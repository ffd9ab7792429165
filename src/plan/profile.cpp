#include "plan/profile.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace sluice {

namespace {

constexpr size_t kMiB = size_t{1} << 20;

// Taken before the first tensor: the CUDA context (about 0.5 GiB), kernels, and library workspaces (cuDNN's attention
// backward takes 257 MiB for 2 x 4096 tokens of 32 heads of 128). An estimate, on the safe side.
constexpr size_t kReserved = 1536 * kMiB;

// Communicators of NCCL, as its users have measured them on NVLink:
// - after an all-reduce of 2 ranks 544 MB, of 3 or 4 ranks 688 MB (NVIDIA/nccl issue 964, A100);
// - the first all-to-all of 8 ranks takes 3.28 GB more, for 7 peers: 32 channels to each, of 10 MiB where it receives
//   and 2 MiB where it sends (issue 1685, H100);
// - 512 MiB are shared by all that goes over the network (issue 2363, NCCL 2.28.9).
constexpr size_t kMB = 1'000'000;
constexpr CommunicatorMemory kNccl{.pair = 544 * kMB,
                                   .group = 688 * kMB,
                                   .peer = 3280 * kMB / 7,
                                   .network = 512 * kMiB,
                                   .sender = nccl::kMessageBlocks * 2 * kMiB,
                                   .receiver = nccl::kMessageBlocks * 10 * kMiB};

// Hopper's tensor cores: H100 and H200 reach the same (stas00/ml-engineering, compute/accelerator).
DeviceModel hopper() {
  DeviceModel device;
  device.target = {.row_align = 128, .workers = 1, .platform = Platform::gpu};  // segments: whole tiles of a product
  device.roof.type = DType::bf16;
  device.roof.flops = 989e12;  // dense bf16, NVIDIA's data sheet of H100 SXM
  // Between two kernels of a stream: an estimate. Launches themselves are hidden behind longer kernels.
  device.op_overhead_s = 3e-6;
  // cuBLASLt: 769-798 TFLOP/s at 8192^3 measured on an H200; 650 over the mixture of a model's shapes, with which a
  // roofline comes within 3 % of NeMo AutoModel's published 12,040 tokens/s/GPU for Qwen3 30B.
  device.matrix_efficiency = 650.0 / 989;
  // Outside of tensor cores: 67 TFLOP/s of f32 by the data sheet, half of it reached.
  device.other_efficiency = 0.034;
  device.roofline_share = {
      // cuDNN 9.27 on H200, causal, 64/8 heads of 128, 4096 tokens: NVIDIA/cudnn-frontend,
      // benchmark/attention_training/results.
      {std::string(AttentionForward::name), 616.0 / 989},
      {std::string(AttentionBackward::name), 495.0 / 989},
      // SonicMoE (arXiv 2512.14080), whole MoE layers of 30B to 120B models on one H100: above 500 forward, 480
      // backward. Permutation and SwiGLU are operations of their own here, so this is on the safe side.
      {std::string(GroupedGemm::name), 500.0 / 989},
      {std::string(GroupedGemmWeight::name), 480.0 / 989},
  };
  return device;
}

DeviceModel h100_device() {
  DeviceModel device = hopper();
  device.roof.bandwidth = 3.0e12;  // of 3.35 TB/s: RMSNorm, softmax and cross-entropy of Dao-AILab/quack on H100
  return device;
}

DeviceModel h200_device() {
  DeviceModel device = hopper();
  device.roof.bandwidth = 4.3e12;  // of 4.8 TB/s: copies within one H200, read plus written, measured
  return device;
}

// Expert dispatch of 7168-wide rows among 8 GPUs of a node: 335 GB/s (NeMo AutoModel, deepep_vs_hybridep_benchmark);
// all-gather and reduce-scatter reach 361 (stas00/ml-engineering, network). The lower one serves for both.
constexpr LinkModel kNvlink{.latency_s = 8e-6, .bandwidth_bytes_per_s = 335e9};
// One 400 Gb/s adapter a GPU, 90 % of it reached (calculon-ai/calculon, systems/h100_80g_nvl8.json). Latencies are
// estimates for small NCCL collectives, per doubling of the group.
constexpr LinkModel kInfiniband{.latency_s = 10e-6, .bandwidth_bytes_per_s = 45e9};

Profile gpu_profile(std::string name, std::string description, DeviceModel device, int gpus_per_node, size_t memory) {
  return {.name = std::move(name),
          .description = std::move(description),
          .device = std::move(device),
          .network = {.ranks_per_node = gpus_per_node, .intra = kNvlink, .inter = kInfiniband},
          .dtype = DType::bf16,
          .memory = memory,
          .usable = memory - kReserved,
          .communicators = kNccl};
}

// As nvidia-smi shows them.
constexpr size_t kH100Memory = 81559 * kMiB;
constexpr size_t kH200Memory = 143771 * kMiB;

}  // namespace

size_t CommunicatorMemory::of_rank(const NcclGroups& groups, int rank, const NetworkModel& network_model) const {
  size_t bytes = 0;
  for (const NcclGroups::Group& each : groups.groups) {
    bytes += each.members.size() == 2 ? pair : group;
    if (!each.exchanges) continue;
    const auto near = std::count_if(each.members.begin(), each.members.end(),
                                    [&](int other) { return other != rank && network_model.same_node(rank, other); });
    bytes += static_cast<size_t>(near) * peer;
    if (static_cast<size_t>(near) + 1 < each.members.size()) bytes += network;
  }
  return bytes + groups.receivers.size() * sender + groups.senders.size() * receiver;
}

std::vector<std::string> profile_names() {
  return {"cpu", "h100", "h200", "dgx-h100"};
}

Profile find_profile(std::string_view name, int ranks, int threads, DType cpu_dtype) {
  if (name == "cpu") return measure_cpu(ranks, threads, cpu_dtype);
  if (name == "h100") {
    return gpu_profile("h100", "H100 80 GB, one a node, 400 Gb/s InfiniBand", h100_device(), 1, kH100Memory);
  }
  if (name == "h200") {
    return gpu_profile("h200", "H200 141 GB, 8 a node, NVLink, 400 Gb/s InfiniBand each", h200_device(), 8,
                       kH200Memory);
  }
  if (name == "dgx-h100") {
    return gpu_profile("dgx-h100", "H100 80 GB, 8 a node, NVLink, 400 Gb/s InfiniBand each", h100_device(), 8,
                       kH100Memory);
  }
  const std::vector<std::string> names = profile_names();
  const std::string meant = nearest(name, names);
  throw user_error("there is no hardware profile {}", name)
      .advise(
          fmt::format("{}there are: {}", meant.empty() ? "" : "did you mean " + meant + "? ", fmt::join(names, ", ")));
}

}  // namespace sluice
