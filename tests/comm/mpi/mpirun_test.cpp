// Several processes of this test program under mpirun. Where sluice was built without MPI, as the sanitizer builds are,
// other wires stand in (tests/comm/processes).
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/error.h"
#include "comm/mpi/mpi.h"

namespace sluice::test {
namespace {

namespace fs = std::filesystem;

// Where a job has its files: in shared memory, as they would be.
class Place {
 public:
  Place() : path_(fmt::format("/dev/shm/sluice_mpi_{}", getpid())) { fs::create_directory(path_); }
  ~Place() { fs::remove_all(path_); }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  Place(Place&&) = delete;
  Place& operator=(Place&&) = delete;

  const std::string& path() const { return path_; }
  std::vector<std::string> files() const {
    std::vector<std::string> list;
    for (const auto& each : fs::recursive_directory_iterator(path_)) {
      if (!each.is_directory()) list.push_back(each.path());
    }
    return list;
  }

 private:
  std::string path_;
};

class Mpirun : public testing::Test {
 protected:
  void SetUp() override {
    if (!mpi::available()) GTEST_SKIP() << "sluice was built without MPI";
  }

  // Runs the tests of that name, and looks that nothing of them is left.
  void run(int processes, const std::string& tests) {
    const Place place;
    const auto begin = std::chrono::steady_clock::now();
    const std::string self = fs::read_symlink("/proc/self/exe");
    // Root is refused without these, and more processes than cores without the option.
    const std::string line = fmt::format(
        "TMPDIR={0} OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 timeout --kill-after=5 60 mpirun "
        "-n {1} --oversubscribe --bind-to none --mca pml ob1 --mca btl_vader_backing_directory {0} "
        "'{2}' --gtest_color=no --gtest_filter='{3}_under_mpirun' 2>&1",
        place.path(), processes, self, tests);
    FILE* const pipe = popen(line.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    std::array<char, 4096> part{};
    for (size_t read = 0; (read = fread(part.data(), 1, part.size(), pipe)) > 0;) output_.append(part.data(), read);
    const int status = pclose(pipe);
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    EXPECT_EQ(place.files(), std::vector<std::string>());
  }
  // With all of these said, by whatever process.
  void expect_end(int code, const std::vector<std::string>& said) const {
    EXPECT_EQ(code_, code) << output_;
    for (const std::string& each : said) EXPECT_NE(output_.find(each), std::string::npos) << each << "\n" << output_;
    constexpr double kSoon = 30;  // less where the machine has nothing else to do
    EXPECT_LT(seconds_, kSoon) << output_;
  }
  void expect_unsaid(const std::string& text) const { EXPECT_EQ(output_.find(text), std::string::npos) << output_; }

  // Of the machine that all of them are on.
  static std::string host() {
    std::array<char, 256> name{};
    gethostname(name.data(), name.size() - 1);
    return name.data();
  }

 private:
  std::string output_;
  int code_ = -1;
  double seconds_ = 0;
};

TEST_F(Mpirun, TheContractOfCommunicatorsHolds) {
  run(4, "Mpi/*");
  expect_end(0, {"[  PASSED  ]", "Collectives.AllGatherConcatenatesInRankOrder/async_under_mpirun"});
}

TEST_F(Mpirun, TheWireKeepsItsPromises) {
  run(3, "MpiWires.*");
  expect_end(0, {"[  PASSED  ]"});
}

TEST_F(Mpirun, AFailureEndsAllAndIsNamedWithRankAndHost) {
  run(3, "MpiVictims.OneThrows");
  expect_end(1, {"error: rank 1: the disk is full", "error: rank 1 on host " + host() + ": the disk is full"});
  expect_unsaid("MPI_ABORT");
}

TEST_F(Mpirun, AKilledProcessEndsAll) {
  run(3, "MpiVictims.OneIsKilled");
  expect_end(137, {"process rank 1", "on node " + host(), "signal 9"});
}

TEST_F(Mpirun, AFailureBeforeTheConnectionEndsAll) {
  run(3, "MpiVictims.OneFailsBeforeItConnects");
  expect_end(2, {"error: run.yaml:3: its own file is wrong"});
}

TEST_F(Mpirun, ProcessesThatDifferAreRefused) {
  run(3, "MpiVictims.TheyDiffer");
  expect_end(2, {"the configuration differs", "rank 1 on host " + host()});
  expect_unsaid("MPI_ABORT");
}

TEST_F(Mpirun, AWorldOfAnotherSizeThanTheLaunchersIsRefused) {
  run(2, "MpiVictims.TheirNumberIsAnother");
  expect_end(2, {"error: the launcher has started 4 processes, and Open MPI", "sees 2", "srun --mpi=pmix"});
}

// Takes as long as others are waited for.
TEST_F(Mpirun, SweepAStoppedProcessIsNamedAndEnds) {
  run(3, "MpiVictims.OneStops");
  expect_end(1, {"no answer from rank 1 on host " + host()});
}

}  // namespace
}  // namespace sluice::test
