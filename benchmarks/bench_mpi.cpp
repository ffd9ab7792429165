// Collectives of ranks in several processes, beside MPI's own in the same run: each in turn, medians, of the slowest
// process. Ours add up in rank order, so that all layouts have the same bits.
//   mpirun -n 2 --bind-to none build/release/bin/bench_mpi
// With OMPI_MCA_btl_vader_single_copy_mechanism=cma in the environment both take Open MPI's own way of large messages.
// As root OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 have to be set.
#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "comm/mpi/mpi.h"
#include "comm/processes/process_world.h"

namespace {

using namespace sluice;

constexpr int kRounds = 9;  // of both, one after the other
constexpr int kCalls = 3;   // of one in a round, after one that is not counted

struct Buffers {
  std::vector<float> in, out, expected;
};

// One collective, ours and MPI's.
struct Case {
  std::string name;
  std::function<void(Communicator& world, Stream& stream)> ours;
  std::function<void()> mpi;
};

// Seconds of each call. The barrier is of what is measured: MPI's threads must not meet.
void time(std::vector<double>& seconds, const std::function<void()>& barrier, const std::function<void()>& call) {
  call();
  for (int i = 0; i < kCalls; ++i) {
    barrier();
    const Stopwatch watch;
    call();
    seconds.push_back(watch.seconds());
  }
}

double median_of_slowest(std::vector<double> seconds) {
  MPI_Allreduce(MPI_IN_PLACE, seconds.data(), static_cast<int>(seconds.size()), MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  std::nth_element(seconds.begin(), seconds.begin() + std::ssize(seconds) / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

void measure(mpi::Session& session, const Case& test, const std::string& size) {
  std::vector<double> ours, theirs;
  const int processes = session.processes();
  for (int round = 0; round < kRounds; ++round) {
    {
      std::vector<Member> members;
      auto wire = session.connect({.process = session.process(), .host = "here", .first_rank = session.process()},
                                  processes, members);
      Courier courier(std::move(wire), members, /*timeout_s=*/60);
      run_ranks(courier, {.timeout_s = 60}, [&](Communicator& world) {
        Stream stream;
        time(ours, [&] { world.barrier(stream, "start"); }, [&] { test.ours(world, stream); });
      });
    }
    time(theirs, [] { MPI_Barrier(MPI_COMM_WORLD); }, test.mpi);
  }
  const double a = median_of_slowest(ours), b = median_of_slowest(theirs);
  if (session.process() == 0)
    fmt::print("{:<16} {:>8} {:>10.3f} {:>10.3f} {:>6.2f}\n", test.name, size, 1e3 * a, 1e3 * b, a / b);
}

void measure_all(mpi::Session& session, size_t bytes, const std::string& size) {
  const auto ranks = static_cast<size_t>(session.processes());
  const size_t part = std::max<size_t>(1, bytes / sizeof(float) / ranks);
  Buffers b{std::vector<float>(ranks * part), std::vector<float>(ranks * part), std::vector<float>(ranks * part)};
  std::iota(b.in.begin(), b.in.end(), static_cast<float>(session.process()));
  const std::vector<int64_t> counts(ranks, static_cast<int64_t>(part));
  const auto count = static_cast<int>(part);
  const Tensor in = tensor_of(b.in.data(), {std::ssize(b.in)}), out = tensor_of(b.out.data(), {std::ssize(b.out)});

  measure(session,
          {"all_to_all",
           [&](Communicator& world, Stream& stream) {
             world.all_to_all_v(stream, out, counts, in, counts, "rows").wait(stream);
           },
           [&] { MPI_Alltoall(b.in.data(), count, MPI_FLOAT, b.expected.data(), count, MPI_FLOAT, MPI_COMM_WORLD); }},
          size);
  require(b.out == b.expected, "all_to_all of {} and MPI's differ", size);
  measure(
      session,
      {"reduce_scatter",
       [&](Communicator& world, Stream& stream) {
         world.reduce_scatter(stream, out.rows(0, counts[0]), in, "sums").wait(stream);
       },
       [&] { MPI_Reduce_scatter_block(b.in.data(), b.expected.data(), count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); }},
      size);
  // With two ranks there is one order of a sum only.
  require(ranks > 2 || std::equal(b.out.begin(), b.out.begin() + counts[0], b.expected.begin()),
          "reduce_scatter of {} and MPI's differ", size);
}

int number_in(const char* name) {
  const char* const text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

}  // namespace

int main() {
  try {
    const auto session = mpi::start(
        {.processes = number_in("OMPI_COMM_WORLD_SIZE"), .local_processes = number_in("OMPI_COMM_WORLD_LOCAL_SIZE")});
    if (session->processes() < 2) {
      throw user_error("one process has nobody to talk to")
          .advise("mpirun -n 2 --bind-to none build/release/bin/bench_mpi");
    }
    if (session->process() == 0) {
      fmt::print("{} processes, {}, {}={}: milliseconds, medians of {}\n{:<16} {:>8} {:>10} {:>10} {:>6}\n",
                 session->processes(), mpi::version(), mpi::kSingleCopy, std::getenv(mpi::kSingleCopy),
                 kRounds * kCalls, "", "a rank", "sluice", "MPI", "ratio");
    }
    measure_all(*session, 4, "4 B");
    measure_all(*session, size_t{64} << 10, "64 KiB");
    measure_all(*session, size_t{1} << 20, "1 MiB");
    measure_all(*session, size_t{64} << 20, "64 MiB");
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", describe(error));
    return 1;
  }
  return 0;
}
