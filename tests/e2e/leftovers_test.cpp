// Whatever happens to a run in several processes: nothing of it is left, no process, no port that is listened at, no
// socket of a host's processes, no shared memory and no temporary file. Each scenario runs where nothing else does.
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>

#include "base/clock.h"
#include "base/file.h"
#include "e2e/program.h"

namespace sluice::test {
namespace {

constexpr int kNotPermitted = 77;

// A network of its own that has the loopback, and shared memory of its own. In the child of a fork.
bool apart() {
  if (::unshare(CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS) != 0) return false;
  const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq loopback{};
  std::memcpy(loopback.ifr_name, "lo", sizeof "lo");
  loopback.ifr_flags = IFF_UP;
  const bool up = ::ioctl(socket, SIOCSIFFLAGS, &loopback) == 0;
  ::close(socket);
  return up && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", "/dev/shm", "tmpfs", 0, nullptr) == 0;
}

// Processes end a moment after what has ended them.
std::string processes_left() {
  const Stopwatch watch;
  constexpr double kPatience = 10;
  for (;;) {
    const pid_t pid = ::waitpid(-1, nullptr, WNOHANG);
    if (pid < 0) return "";
    if (pid > 0) continue;
    if (watch.seconds() > kPatience) return "a process still runs\n";
    ::usleep(2000);
  }
}

std::string sockets_left() {
  std::string left;
  for (const char* table : {"/proc/self/net/tcp", "/proc/self/net/tcp6"}) {
    std::ifstream lines(table);
    std::string line, word;
    std::getline(lines, line);
    while (std::getline(lines, line)) {
      // Its number, the local address, the other one, the state.
      std::istringstream words(line);
      for (int i = 0; i < 4; ++i) words >> word;
      if (word == "0A") left += fmt::format("listened at: {}\n", line);
    }
  }
  std::ifstream lines("/proc/self/net/unix");
  for (std::string line; std::getline(lines, line);) {
    if (line.find("@sluice") != std::string::npos) left += fmt::format("a socket: {}\n", line);
  }
  return left;
}

std::string files_left(const std::filesystem::path& directory) {
  std::string left;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    if (!entry.is_directory()) left += fmt::format("a file: {}\n", entry.path().string());
  }
  return left;
}

class Leftovers : public testing::Test {
 protected:
  Leftovers() { std::filesystem::create_directory(temporary_); }

  std::string train() const {
    return fmt::format("train '{}' --ranks 4 --checkpoint.checkpoint_dir '{}'", file_, folder_.path("run"));
  }
  // Lines of bash around a run in the background, whose number is $job, once it makes steps.
  std::string when_it_runs(const std::string& launch, const std::string& then, const std::string& options = "") const {
    return launch + " -- " + train() + options + " & job=$!; " +
           fmt::format("for i in $(seq 1000); do [ -s '{}' ] && break; sleep 0.02; done; ",
                       folder_.path("run/training.jsonl")) +
           then + "; wait $job; echo code $?";
  }
  // When `script` has ended, which says what the run's exit code was.
  void expect_nothing_left(const std::string& script, const std::string& code) {
    const std::optional<std::string> left = left_by(script);
    if (!left) GTEST_SKIP() << "no namespaces are permitted here";
    EXPECT_NE(said_.find("code " + code + "\n"), std::string::npos) << said_;
    EXPECT_EQ(*left, "") << said_;
  }
  // None: it may not be tried here.
  std::optional<std::string> left_by(const std::string& script) {
    const std::string out = folder_.path("out"), left = folder_.path("left");
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::prctl(PR_SET_CHILD_SUBREAPER, 1);
      if (!apart()) ::_exit(kNotPermitted);
      const std::string line = fmt::format("cd '{}' && export SLUICE='{}' TMPDIR='{}'; exec >'{}' 2>&1 </dev/null; {}",
                                           SLUICE_SOURCE_DIR, SLUICE_BINARY, temporary_, out, script);
      const pid_t shell = ::fork();
      if (shell == 0) {
        ::execl("/bin/bash", "bash", "-c", line.c_str(), nullptr);
        ::_exit(1);
      }
      ::waitpid(shell, nullptr, 0);
      std::ofstream(left) << processes_left() << sockets_left() << files_left("/dev/shm") << files_left(temporary_);
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotPermitted) return std::nullopt;
    said_ = read_file(out, 1 << 20);
    return read_file(left, 1 << 20);
  }

  const std::string launch_ = "$SLUICE launch --nproc 2", last_ = "$(pgrep -P $job | tail -1)";
  std::string said_;
  Folder folder_;
  std::string temporary_ = folder_.path("tmp");
  std::string file_ = folder_.file("run.yaml",
                                   "step_scheduler: {global_batch_size: 8, local_batch_size: 1, max_steps: "
                                   "100000, ckpt_every_steps: 50}\n" +
                                       small_model() + "distributed: {pp_size: 2, ep_size: 2}\n");
};

TEST_F(Leftovers, AreFound) {
  const std::optional<std::string> left = left_by(": >/dev/shm/segment; : >$TMPDIR/staged");
  if (!left) GTEST_SKIP() << "no namespaces are permitted here";
  EXPECT_EQ(*left, "a file: /dev/shm/segment\na file: " + temporary_ + "/staged\n");
}

TEST_F(Leftovers, OfAProcessThatIsKilled) {
  expect_nothing_left(when_it_runs(launch_, "kill -9 " + last_), "137");
}

TEST_F(Leftovers, OfALauncherThatIsKilled) {
  expect_nothing_left(when_it_runs(launch_, "kill -9 $job"), "137");
}

TEST_F(Leftovers, OfTheLauncherOfASecondHostThatIsKilled) {
  const std::string both = launch_ + " --nnodes 2 --master 127.0.0.1:29500 --node-rank ";
  std::string script = when_it_runs(both + "0", "kill -9 $second");
  expect_nothing_left(both + "1 -- " + train() + " & second=$!; " + script, "1");
}

TEST_F(Leftovers, OfAProcessThatIsStopped) {
  expect_nothing_left(when_it_runs(launch_, "kill -STOP " + last_, " --runtime.watchdog_seconds 2"), "1");
}

TEST_F(Leftovers, OfAnError) {
  const std::string small = "--step_scheduler.max_steps 4 --step_scheduler.ckpt_every_steps 2";
  expect_nothing_left("ulimit -f 8; " + launch_ + " -- " + train() + " " + small + "; echo code $?", "1");
}

TEST_F(Leftovers, OfARefusedConfiguration) {
  expect_nothing_left(launch_ + " -- " + train() + " --sead 1; echo code $?", "2");
}

TEST_F(Leftovers, OfAProcessThatIsKilledUnderMpirun) {
  if (shell("$SLUICE doctor | grep -q mpirun && command -v mpirun").code != 0) {
    GTEST_SKIP() << "there is no mpirun here, or this build is without MPI";
  }
  const std::string mpirun =
      "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; mpirun --oversubscribe -n 2 $SLUICE " +
      train();
  std::string script = when_it_runs("MPIRUN", "kill -9 " + last_);
  script.replace(0, script.find(" & job"), mpirun);
  expect_nothing_left(script, "137");
}

}  // namespace
}  // namespace sluice::test
