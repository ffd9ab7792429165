// What is said of processes that a launcher keeps from processors, by numbers alone.
#include "launch/binding.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <numeric>

namespace sluice::launch {
namespace {

std::vector<int> from_to(int first, int last) {
  std::vector<int> processors(static_cast<size_t>(last - first + 1));
  std::iota(processors.begin(), processors.end(), first);
  return processors;
}

TEST(Binding, WhatIsLostIsSaidWithTheWayOut) {
  // As mpirun -n 2 on a host of eight: each on a core of its own.
  const std::vector<Place> bound{{.host = "a", .processors = {0}, .around = 8},
                                 {.host = "a", .processors = {1}, .around = 8}};
  EXPECT_EQ(binding_note(bound, {}, Source::mpi),
            "process 0 on host a may run on 1 of 8 processors, and its share is 4 (2 processes are kept so); each "
            "is kept on a core of its own, unless it is started by mpirun --bind-to none");
  EXPECT_EQ(binding_note({bound[0]}, {}, Source::slurm),
            "process 0 on host a may run on 1 of 8 processors, and its share is 8; for N processors each: srun "
            "--cpus-per-task=N");
  // Only the second host's, one on the processors of the other where nothing else is known.
  const std::vector<Place> second{{.host = "a", .processors = from_to(0, 3), .around = 4},
                                  {.host = "b", .processors = {0}},
                                  {.host = "b", .processors = from_to(0, 6)}};
  EXPECT_EQ(binding_note(second, 4, Source::torchrun),
            "process 1 on host b may run on 1 of 7 processors, and its share is 3; what started them keeps them there "
            "(taskset, numactl, a launcher's option)");
}

TEST(Binding, NothingIsSaidWhereNothingIsLost) {
  const Place core{.host = "a", .processors = {0}, .around = 8};
  // As many as it would use, a thread alone.
  EXPECT_EQ(binding_note({core}, 1, Source::mpi), "");
  // A process for each core.
  EXPECT_EQ(binding_note({{.host = "a", .processors = {0}, .around = 2}, {.host = "a", .processors = {1}, .around = 2}},
                         {}, Source::mpi),
            "");
  // More processes than cores, all on all of them; a container that has fewer than the machine.
  const Place all{.host = "a", .processors = {0, 1}, .around = 2};
  EXPECT_EQ(binding_note({all, all, all, all}, 8, Source::mpi), "");
  // The system does not say.
  EXPECT_EQ(binding_note({{.host = "a"}, {.host = "a"}}, {}, Source::mpi), "");
}

TEST(Binding, APlaceIsThisProcesssAndTravelsAsText) {
  cpu_set_t set;
  CPU_ZERO(&set);
  ASSERT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  const Place here = place_of_process();
  EXPECT_EQ(std::ssize(here.processors), CPU_COUNT(&set));
  EXPECT_NE(here.host, "");
  Place read = place_of(to_text(here));
  read.host = here.host;
  EXPECT_EQ(read, here);
  EXPECT_EQ(read.around, here.around);
}

}  // namespace
}  // namespace sluice::launch
