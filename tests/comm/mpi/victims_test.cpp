// Jobs that end badly, for mpirun_test.cpp to look at: each process ends as the program would, with what it has thrown.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "comm/mpi/under_mpirun.h"

namespace sluice::test {
namespace {

constexpr double kTimeout = 1;

// Exits with 0, 1 or 2, as main() does.
[[noreturn]] void as_a_program(const std::function<void(mpi::Session& session)>& body) {
  int code = 0;
  try {
    const std::unique_ptr<mpi::Session> session = mpi::start(launched());
    body(*session);
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", describe(error));
    code = error.kind() == ErrorKind::user ? 2 : 1;
  }
  std::exit(code);
}

// Sums of sums, each of too much for a packet, for ever; before one of them rank 1 does something.
void work(mpi::Session& session, const std::function<void()>& rank_1) {
  const int ranks = session.processes();
  std::vector<Member> members;
  auto wire = session.connect(share_of(session.process(), ranks, ranks), ranks, members);
  Courier courier(std::move(wire), members, kTimeout);
  run_ranks(courier, {.timeout_s = kTimeout}, [&](Communicator& world) {
    Stream stream;
    std::vector<float> data(200'000, 1.0F);
    for (int step = 0;; ++step) {
      if (step == 20 && world.rank() == 1) rank_1();
      world.all_reduce(stream, tensor_of(data.data(), {std::ssize(data)}), ReduceOp::sum, "gradients").wait(stream);
    }
  });
}

TEST(MpiVictims, OneThrows_under_mpirun) {
  as_a_program([](mpi::Session& session) { work(session, [] { throw runtime_failure("the disk is full"); }); });
}

TEST(MpiVictims, OneIsKilled_under_mpirun) {
  as_a_program([](mpi::Session& session) { work(session, [] { std::raise(SIGKILL); }); });
}

TEST(MpiVictims, OneStops_under_mpirun) {
  as_a_program([](mpi::Session& session) { work(session, [] { std::raise(SIGSTOP); }); });
}

// While the others wait for it.
TEST(MpiVictims, OneFailsBeforeItConnects_under_mpirun) {
  as_a_program([](mpi::Session& session) {
    if (session.process() == 1) throw user_error("its own file is wrong").at("run.yaml:3");
    work(session, [] {});
  });
}

TEST(MpiVictims, TheyDiffer_under_mpirun) {
  as_a_program([](mpi::Session& session) {
    Member self = share_of(session.process(), session.processes(), session.processes());
    self.common.emplace_back("configuration", session.process() == 1 ? "abc" : "def");
    std::vector<Member> members;
    session.connect(self, session.processes(), members);
  });
}

// As where the program and mpirun are of different MPIs.
TEST(MpiVictims, TheirNumberIsAnother_under_mpirun) {
  try {
    mpi::Launched other = launched();
    other.processes += 2;
    mpi::start(other);
  } catch (const Error& error) {
    fmt::print(stderr, "error: {}\n", describe(error));
    std::exit(2);
  }
  std::exit(0);
}

}  // namespace
}  // namespace sluice::test
