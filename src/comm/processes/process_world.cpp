#include "comm/processes/process_world.h"

#include <numeric>
#include <vector>

#include "base/log.h"
#include "comm/processes/process_communicator.h"

namespace sluice {
namespace {

std::vector<int> ranks_from(int first, int count) {
  std::vector<int> ranks(static_cast<size_t>(count));
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

}  // namespace

ProcessWorld::ProcessWorld(Courier& courier, const ProcessOptions& options)
    : courier_(courier),
      options_(options),
      job_(ranks_from(courier.self().first_rank, courier.self().ranks), options.timeout_s, &courier),
      number_(courier.serve(&job_)) {}

ProcessWorld::~ProcessWorld() {
  courier_.serve(nullptr);
}

std::unique_ptr<Communicator> ProcessWorld::communicator(int rank) {
  return std::make_unique<ProcessCommunicator>(*this, static_cast<uint64_t>(number_), "world",
                                               ranks_from(0, courier_.world()), rank);
}

void ProcessWorld::run(const std::function<void(int rank)>& body) {
  job_.run(body);
  courier_.exchange("the end of a job");
}

void run_ranks(Courier& courier, const ProcessOptions& options, const std::function<void(Communicator& world)>& body) {
  ProcessWorld world(courier, options);
  world.run([&](int rank) {
    const log::RankScope scope(rank, courier.world());
    const std::unique_ptr<Communicator> communicator = world.communicator(rank);
    body(*communicator);
  });
}

}  // namespace sluice
