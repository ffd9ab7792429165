#include "comm/mpi/under_mpirun.h"

#include <unistd.h>

#include <array>
#include <cstdlib>

#include "base/error.h"
#include "comm/transports.h"
#include "device/ref/ref_backend.h"

namespace sluice::test {
namespace {

int number_in(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

}  // namespace

mpi::Launched launched() {
  return {.process = number_in("OMPI_COMM_WORLD_RANK", -1),
          .processes = number_in("OMPI_COMM_WORLD_SIZE", 0),
          .local_processes = number_in("OMPI_COMM_WORLD_LOCAL_SIZE", 0),
          .threads = 2};
}

mpi::Session& session() {
  static const std::unique_ptr<mpi::Session> only = mpi::start(launched());
  return *only;
}

Member share_of(int process, int processes, int ranks) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  const int each = ranks / processes, more = ranks % processes;
  return {.process = process,
          .host = host.data(),
          .first_rank = process * each + std::min(process, more),
          .ranks = each + (process < more ? 1 : 0)};
}

void run_over_mpi(int ranks, const ProcessOptions& options, const std::function<void(Communicator& world)>& body) {
  mpi::Session& mpi = session();
  std::vector<Member> members;
  auto wire = mpi.connect(share_of(mpi.process(), mpi.processes(), ranks), ranks, members);
  Courier courier(std::move(wire), members, options.timeout_s);
  run_ranks(courier, options, body);
}

Transport mpi_transport(bool async) {
  constexpr double kTimeout = 30;
  // At least one for each process.
  return {.name = async ? "async_under_mpirun" : "inline_under_mpirun",
          .sizes = {4, 5, 8},
          .carrier = Kernel::processes,
          .run =
              [async](int ranks, const auto& body) {
                run_over_mpi(ranks, {.timeout_s = kTimeout, .async = async}, [&](Communicator& world) {
                  RefBackend backend;
                  HostMemory memory;
                  Stream stream;
                  TransportRank rank{world, stream, backend, memory};
                  body(rank);
                });
              },
          .here = [](int ranks) { return share_of(session().process(), session().processes(), ranks).ranks; },
          .missing = launched().processes > 0 ? "" : "mpirun has not started this process"};
}

}  // namespace sluice::test
