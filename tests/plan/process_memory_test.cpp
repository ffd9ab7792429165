// The planned bytes are the ones the process takes from the system.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "data/mock.h"
#include "tiny.h"

namespace sluice::test {
namespace {

size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t size = 0;
  size_t resident = 0;
  file >> size >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

struct Growth {
  double resident = 0;
  double planned = 0;
};

// One step of a model of 71 million parameters, few of which meet a token.
Growth run_one_step() {
  const RunSpec spec = tiny_spec(
      {"wide",
       1,
       {"--step_scheduler.global_batch_size=2", "--step_scheduler.max_steps=1", "--model.config.num_hidden_layers=1",
        "--model.config.hidden_size=512", "--model.config.num_experts=32", "--model.config.num_experts_per_tok=1",
        "--model.config.moe_intermediate_size=1408", "--model.config.vocab_size=512"}});
  const MockDataset dataset(spec.seed, spec.model.vocab_size);
  const size_t before = resident_bytes();
  Growth growth;
  run_session(spec, {.device = DeviceKind::cpu, .threads = 2}, dataset, [&](Trainer& trainer) {
    trainer.step(0);
    growth.planned =
        static_cast<double>(plan_rank(spec, 0, {.target = trainer.context().backend().target()}, {}).ledger.peak());
    growth.resident = static_cast<double>(resident_bytes()) - static_cast<double>(before);
  });
  return growth;
}

// In a process of its own, so that nothing else is counted.
TEST(ProcessMemory, GrowsByWhatWasPlanned) {
  if (Arena::footprint(1) > Arena::kAlignment) GTEST_SKIP() << "this build adds memory of its own to every block";
  std::array<int, 2> pipe_ends{};
  ASSERT_EQ(pipe(pipe_ends.data()), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      const Growth growth = run_one_step();
      const bool written = write(pipe_ends[1], &growth, sizeof growth) == sizeof growth;
      _exit(written ? 0 : 1);
    } catch (...) {
      _exit(2);
    }
  }
  close(pipe_ends[1]);
  Growth growth;
  const ssize_t received = read(pipe_ends[0], &growth, sizeof growth);
  close(pipe_ends[0]);
  int status = -1;
  waitpid(child, &status, 0);
  ASSERT_EQ(status, 0);
  ASSERT_EQ(received, static_cast<ssize_t>(sizeof growth));
  const double ratio = growth.resident / growth.planned;
  RecordProperty("resident_over_planned", fmt::format("{:.4f}", ratio));
  EXPECT_GT(growth.planned, 1073741824.0);
  EXPECT_TRUE(ratio >= 0.95 && ratio <= 1.05) << growth.resident << " bytes taken, " << growth.planned << " planned";
}

}  // namespace
}  // namespace sluice::test
