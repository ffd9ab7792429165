#include "comm/nccl/nccl.h"

#include <algorithm>
#include <set>

#include "base/log.h"
#include "comm/inproc/inproc.h"
#include "comm/nccl/nccl_communicator.h"
#include "comm/processes/process_world.h"

namespace sluice::nccl {

namespace {

std::unique_ptr<Communicator> make(std::unique_ptr<Communicator> bootstrap, int gpu, const NcclOptions& options,
                                   Peers peers) {
  auto rank = std::make_shared<Rank>(bootstrap->world_rank(), gpu, options, std::move(peers));
  std::string path = bootstrap->axis();
  auto channels = std::make_shared<Channels>(std::move(rank));
  return std::make_unique<NcclCommunicator>(std::move(channels), std::move(bootstrap), std::move(path));
}

int count_gpus() {
  int gpus = 0;
  const cudaError_t status = cudaGetDeviceCount(&gpus);
  if (status != cudaSuccess) {
    throw user_error("no GPU or driver: {} ({})", cudaGetErrorName(status), static_cast<int>(status));
  }
  return gpus;
}

void drop(std::string& text, const std::string& part) {
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part)) text.erase(at, part.size());
}

// What members of other processes do instead of `call`, as those answer.
std::string whereabouts(Courier& courier, const std::vector<int>& members, const CallName& call) {
  constexpr size_t kMostAsked = 8;  // one that has stopped takes seconds to say nothing
  std::vector<int> gone;
  std::vector<const Member*> asked;
  for (const Member& member : courier.members()) {
    const auto of_it = [&](int r) { return r >= member.first_rank && r < member.first_rank + member.ranks; };
    bool still = false;
    for (const int rank : members) {
      if (!of_it(rank)) continue;
      const bool left = courier.has_left(rank);
      if (left) gone.push_back(rank);
      still = still || !left;
    }
    if (still) asked.push_back(&member);
  }
  std::string text = gone.empty() ? "" : format_ranks(gone) + (gone.size() == 1 ? " has left" : " have left");
  for (size_t i = 0; i < std::min(asked.size(), kMostAsked); ++i) {
    std::string answer = courier.account({asked[i]->first_rank}).text;
    for (int rank = asked[i]->first_rank; rank < asked[i]->first_rank + asked[i]->ranks; ++rank) {
      const std::string same = fmt::format("rank {} on host {} is waiting in {}", rank, asked[i]->host, call.str());
      drop(answer, ", " + same);
      drop(answer, same + ", ");
      drop(answer, same);
    }
    if (!answer.empty()) text += (text.empty() ? "" : "; ") + answer;
  }
  return text;
}

using Body = std::function<void(Communicator& world)>;

// A rank of a job, whose ranks in this process are in `ledger`, from its first call to its last.
void run_rank(std::unique_ptr<Communicator> bootstrap, int gpu, const NcclOptions& options, const Peers& peers,
              const Body& body) {
  const int rank = bootstrap->rank();
  const log::RankScope scope(rank, bootstrap->size());
  const auto communicator = make(std::move(bootstrap), gpu, options, peers);
  body(*communicator);
  communicator->check_alive();
  peers.ledger->leave(rank);
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

void run_ranks(int ranks, const NcclOptions& options, const Body& body) {
  const int gpus = count_gpus();
  if (gpus < ranks) {
    throw user_error("{} ranks need a GPU each, and there {} {}", ranks, gpus == 1 ? "is" : "are", gpus)
        .advise(fmt::format("run with at most {} ranks on this machine", gpus));
  }
  InprocWorld world(ranks, {.timeout_s = options.timeout_s});
  const auto ledger = std::make_shared<Ledger>();
  world.run([&](int rank) { run_rank(world.communicator(rank), rank, options, {&world.job(), ledger}, body); });
}

void run_ranks(Courier& courier, const std::vector<int>& gpus, const NcclOptions& options, const Body& body) {
  const Member& self = courier.self();
  require(std::ssize(gpus) == self.ranks, "{} GPUs for {}", gpus.size(), self.str());
  require(std::set(gpus.begin(), gpus.end()).size() == gpus.size(), "two of {} have one GPU", self.str());
  const int most = *std::max_element(gpus.begin(), gpus.end());
  require(most < count_gpus(), "{} with GPU {} of {}", self.str(), most, count_gpus());
  ProcessWorld world(courier, {.timeout_s = options.timeout_s});
  const auto ledger = std::make_shared<Ledger>([&courier](int rank) { return courier.here(rank); });
  const auto elsewhere = [&courier](const std::vector<int>& members, const CallName& call) {
    return whereabouts(courier, members, call);
  };
  world.run([&](int rank) {
    const int gpu = gpus[static_cast<size_t>(rank - self.first_rank)];
    run_rank(world.communicator(rank), gpu, options, {&world.job(), ledger, elsewhere}, body);
  });
}

}  // namespace sluice::nccl
