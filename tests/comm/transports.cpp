#include "comm/transports.h"

#include <numeric>
#include <optional>

#include "comm/cuda/cuda_mover.h"
#include "comm/inproc/inproc.h"
#include "comm/nccl/nccl.h"
#include "comm/processes/run_processes.h"
#include "device/cuda/cuda.h"
#include "device/ref/ref_backend.h"
#include "emulation/emulated.h"
#include "emulation/nccl/emulated_nccl.h"

namespace sluice::test {

namespace {

constexpr double kTimeout = 60;

// The ranks of each process.
std::vector<int> spread(Processes processes, int ranks) {
  if (processes == Processes::two && ranks > 1) return {(ranks + 1) / 2, ranks / 2};
  return std::vector<int>(static_cast<size_t>(ranks), 1);
}

// `sizes` that there are GPUs for; `missing` if none is. `processes`: how the ranks are spread; none: in one.
Transport nccl_transport(const std::vector<int>& sizes, std::optional<Processes> processes = {}) {
  Transport transport{.carrier = Kernel::nccl, .rank_order = false, .tags = false, .float_maxima = false};
  const cuda::Gpus gpus = cuda::find_gpus();
  for (const int ranks : sizes) {
    if (ranks <= std::ssize(gpus.list)) transport.sizes.push_back(ranks);
  }
  if (!nccl::available()) {
    transport.missing = "sluice was built without NCCL";
  } else if (gpus.list.empty()) {
    transport.missing = gpus.why_none;
  } else if (transport.sizes.empty()) {
    transport.missing = fmt::format("needs {} GPUs, and there is {}", sizes.front(), gpus.list.size());
  }
  const int most = transport.sizes.empty() ? sizes.back() : transport.sizes.back();
  const std::string name = processes ? "nccl_processes" : "nccl";
  transport.name =
      most == 1 ? fmt::format("{}_1_rank_on_cuda", name) : fmt::format("{}_up_to_{}_ranks_on_cuda", name, most);
  if (transport.sizes.empty()) transport.sizes = {1};
  const nccl::NcclOptions options{.timeout_s = kTimeout, .message_axes = {"world", "pp", "pair"}, .calls_at_one = true};
  transport.run = [processes, options](int ranks, const auto& body) {
    const auto on_rank = [&](Communicator& world) {
      const auto backend = cuda::make_backend({.ordinal = world.rank()});
      backend->after_reads([&] { world.check_alive(); });
      const auto memory = cuda::make_device_memory(world.rank());
      Stream stream(backend->compute_stream());
      TransportRank rank{world, stream, *backend, *memory};
      body(rank);
    };
    if (!processes) return nccl::run_ranks(ranks, options, on_rank);
    expect_couriers({.ranks = spread(*processes, ranks), .timeout_s = kTimeout}, [&](Courier& courier) {
      std::vector<int> own(static_cast<size_t>(courier.self().ranks));
      std::iota(own.begin(), own.end(), courier.self().first_rank);
      nccl::run_ranks(courier, own, options, on_rank);
    });
  };
  return transport;
}

}  // namespace

Transport inproc_transport(bool async) {
  return {.name = async ? "inproc_async" : "inproc_inline",
          .sizes = {1, 2, 3, 4, 5, 8, 64},
          .run = [async](int ranks, const auto& body) {
            run_ranks(ranks, {.timeout_s = kTimeout, .async = async}, [&](Communicator& world) {
              RefBackend backend;
              HostMemory memory;
              Stream stream;
              TransportRank rank{world, stream, backend, memory};
              body(rank);
            });
          }};
}

Transport process_transport(Processes processes, bool async) {
  return {.name = fmt::format("{}_{}", processes == Processes::two ? "two_processes" : "process_each",
                              async ? "async" : "inline"),
          .sizes = {1, 2, 3, 4, 5, 8},
          .carrier = Kernel::processes,
          .run = [processes, async](int ranks, const auto& body) {
            const ProcessCase test{.ranks = spread(processes, ranks), .timeout_s = kTimeout, .async = async};
            expect_processes(test, [&](Communicator& world) {
              RefBackend backend;
              HostMemory memory;
              Stream stream;
              TransportRank rank{world, stream, backend, memory};
              body(rank);
            });
          }};
}

namespace {

template <class MakeBackend, class MakeMemory>
void run_on_gpu(int ranks, const MoverFactory& mover, const MakeBackend& make_backend, const MakeMemory& make_memory,
                const std::function<void(TransportRank&)>& body) {
  InprocOptions options;
  options.timeout_s = kTimeout;
  options.mover = mover;
  run_ranks(ranks, options, [&](Communicator& world) {
    const auto backend = make_backend();
    const auto memory = make_memory();
    Stream stream(backend->compute_stream());
    TransportRank rank{world, stream, *backend, *memory};
    body(rank);
    backend->synchronize();
  });
}

}  // namespace

Transport inproc_on_emulated_gpu() {
  return {.name = "inproc_on_cuda_emulated",
          .sizes = {1, 2, 3, 4, 5, 8},
          .carrier = Kernel::threads_on_gpu,
          .run = [](int ranks, const auto& body) {
            constexpr int kRowAlign = 1;
            run_on_gpu(
                ranks, [](int) { return emulation::make_mover(); },
                [] { return emulation::make_backend(kRowAlign, /*synchronous=*/false); }, emulation::make_memory, body);
          }};
}

Transport inproc_on_gpu() {
  return {.name = "inproc_on_cuda",
          .sizes = {1, 2, 3, 4, 5, 8, 64},
          .carrier = Kernel::threads_on_gpu,
          .run =
              [](int ranks, const auto& body) {
                run_on_gpu(
                    ranks, [](int) { return cuda::make_mover(0); }, [] { return cuda::make_backend({}); },
                    [] { return cuda::make_device_memory(0); }, body);
              },
          .missing = cuda::find_gpus().why_none};
}

Transport emulated_nccl() {
  return {.name = "nccl_emulated",
          .sizes = {1, 2, 3, 4},
          .carrier = Kernel::nccl,
          .rank_order = false,
          .tags = false,
          .float_maxima = false,
          .run = [](int ranks, const auto& body) {
            emulation::run_nccl({.ranks = ranks, .timeout_s = kTimeout}, [&](emulation::NcclRank& nccl) {
              HostMemory memory;
              TransportRank rank{nccl.world, nccl.stream, nccl.backend, memory};
              body(rank);
            });
          }};
}

Transport emulated_nccl(Processes processes) {
  Transport transport = emulated_nccl();
  transport.name = fmt::format("nccl_emulated_{}", processes == Processes::two ? "two_processes" : "process_each");
  transport.sizes = processes == Processes::two ? std::vector<int>{2, 3, 5} : std::vector<int>{1, 4};
  transport.run = [processes](int ranks, const auto& body) {
    const ProcessCase test{.ranks = spread(processes, ranks), .timeout_s = kTimeout};
    expect_couriers(test, [&](Courier& courier) {
      emulation::run_nccl({.timeout_s = kTimeout, .courier = &courier}, [&](emulation::NcclRank& nccl) {
        HostMemory memory;
        TransportRank rank{nccl.world, nccl.stream, nccl.backend, memory};
        body(rank);
      });
    });
  };
  return transport;
}

Transport nccl_on_one_gpu() {
  return nccl_transport({1});
}
Transport nccl_on_one_gpu(Processes processes) {
  return nccl_transport({1}, processes);
}

Transport nccl_on_many_gpus() {
  return nccl_transport({2, 3, 4, 8});
}
Transport nccl_on_many_gpus(Processes processes) {
  return nccl_transport({2, 3, 4, 8}, processes);
}

}  // namespace sluice::test
