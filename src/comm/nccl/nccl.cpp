#include "comm/nccl/nccl.h"

#include "base/log.h"
#include "comm/inproc/inproc.h"
#include "comm/job.h"
#include "comm/nccl/nccl_communicator.h"

namespace sluice::nccl {

namespace {

std::unique_ptr<Communicator> make(std::unique_ptr<Communicator> bootstrap, int gpu, const NcclOptions& options,
                                   Peers peers) {
  auto rank = std::make_shared<Rank>(bootstrap->world_rank(), gpu, options, std::move(peers));
  std::string path = bootstrap->axis();
  return std::make_unique<NcclCommunicator>(std::move(rank), std::move(bootstrap), std::move(path));
}

// The others are threads of `world`.
Peers peers_in(InprocWorld& world, int rank, std::shared_ptr<Ledger> ledger) {
  Job& job = world.job();
  const auto failure = [&job, rank](const CallName& call) -> std::string {
    try {
      job.check(rank, call);
    } catch (const Error& error) {
      return error.what();
    }
    return {};
  };
  return {.tell = [&world, rank](const std::string& message) { world.abort(rank, message); },
          .dropped = [&job, rank](const CallName& call, bool unwinding) { job.dropped(rank, call, unwinding); },
          .failure = failure,
          .ledger = std::move(ledger)};
}

void check_gpus(int ranks) {
  int gpus = 0;
  const cudaError_t status = cudaGetDeviceCount(&gpus);
  if (status != cudaSuccess) {
    throw user_error("no GPU or driver: {} ({})", cudaGetErrorName(status), static_cast<int>(status));
  }
  if (gpus < ranks) {
    throw user_error("{} ranks need a GPU each, and there {} {}", ranks, gpus == 1 ? "is" : "are", gpus)
        .advise(fmt::format("run with at most {} ranks on this machine", gpus));
  }
}

}  // namespace

bool available() {
  return true;
}

std::string version() {
  int code = 0;
  if (ncclGetVersion(&code) != ncclSuccess) return "NCCL";
  return fmt::format("NCCL {}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Communicator> bootstrap, int gpu,
                                                const NcclOptions& options) {
  return make(std::move(bootstrap), gpu, options, {});
}

void run_ranks(int ranks, const NcclOptions& options, const std::function<void(Communicator& world)>& body) {
  check_gpus(ranks);
  InprocWorld world(ranks, {.timeout_s = options.timeout_s});
  const auto ledger = std::make_shared<Ledger>();
  world.run([&](int rank) {
    const log::RankScope scope(rank, ranks);
    const auto communicator = make(world.communicator(rank), rank, options, peers_in(world, rank, ledger));
    body(*communicator);
    communicator->check_alive();
    ledger->leave(rank);
  });
}

}  // namespace sluice::nccl
