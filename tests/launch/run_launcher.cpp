#include "launch/run_launcher.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include "base/clock.h"
#include "base/error.h"
#include "launch/local_processes.h"

namespace sluice::launch {
namespace {

constexpr double kPatience = 20;

// In the child of a fork.
[[noreturn]] void launch_here(const std::string& script, const LocalPlan& plan, const LaunchTimes& times) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGTSTP}) ::signal(signal, SIG_DFL);
  ::setenv("TERM", "xterm", 1);
  ::setenv("NO_COLOR", "1", 1);
  ::setenv("OMP_NUM_THREADS", "7", 1);
  ::setenv("RANK", "of somebody else", 1);
  int code = 99;
  try {
    code = run_processes({"/bin/sh", "-c", script}, plan, times);
  } catch (const Error& error) {
    const std::string text = describe(error);
    if (::write(STDERR_FILENO, text.data(), text.size()) < 0) code = 98;
  }
  ::_exit(code);
}

}  // namespace

RunningLauncher::RunningLauncher(const std::string& script, const LocalPlan& plan, const LaunchTimes& times,
                                 Output output) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  if (output == Output::terminal) {
    pid_ = ::forkpty(&out_, nullptr, nullptr, nullptr);
    if (pid_ == 0) launch_here(script, plan, times);
    return;
  }
  std::array<int, 2> out{}, err{};
  if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  pid_ = ::fork();
  if (pid_ == 0) {
    ::dup2(output == Output::full_disk ? ::open("/dev/full", O_WRONLY | O_CLOEXEC) : out[1], STDOUT_FILENO);
    ::dup2(err[1], STDERR_FILENO);
    for (const int number : {out[0], out[1], err[0], err[1]}) ::close(number);
    launch_here(script, plan, times);
  }
  ::close(out[1]);
  ::close(err[1]);
  out_ = out[0];
  err_ = err[0];
}

RunningLauncher::~RunningLauncher() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  for (const int number : {out_, err_}) {
    if (number >= 0) ::close(number);
  }
}

void RunningLauncher::read_some(int milliseconds) {
  std::array<pollfd, 2> all{
      {{.fd = reads_ ? out_ : -1, .events = POLLIN, .revents = 0}, {.fd = err_, .events = POLLIN, .revents = 0}}};
  if (::poll(all.data(), all.size(), milliseconds) <= 0) return;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].revents == 0) continue;
    std::array<char, 4096> buffer{};
    const ssize_t count = ::read(all[i].fd, buffer.data(), buffer.size());
    if (count > 0) {
      (i == 0 ? ended_.out : ended_.err).append(buffer.data(), static_cast<size_t>(count));
    } else {
      ::close(all[i].fd);
      (i == 0 ? out_ : err_) = -1;
    }
  }
}

void RunningLauncher::wait_for(const std::string& text, int times) {
  const Stopwatch watch;
  for (;;) {
    int found = 0;
    for (size_t at = 0; (at = ended_.out.find(text, at)) != std::string::npos; at += text.size()) ++found;
    if (found >= times) return;
    if (watch.seconds() > kPatience || out_ < 0) break;
    read_some(100);
  }
  ADD_FAILURE() << "no " << text << ", " << times << " times, in: " << ended_.out << ended_.err;
}

void RunningLauncher::send(int signal) const {
  ::kill(pid_, signal);
}

void RunningLauncher::wait_stopped() const {
  int status = 0;
  EXPECT_EQ(::waitpid(pid_, &status, WUNTRACED), pid_);
  EXPECT_TRUE(WIFSTOPPED(status));
}

void RunningLauncher::close_reader() {
  ::close(out_);
  out_ = -1;
}

Ended RunningLauncher::wait() {
  const Stopwatch watch;
  int status = 0;
  pid_t done = 0;
  while (done == 0 && watch.seconds() < kPatience) {
    read_some(5);
    done = ::waitpid(pid_, &status, WNOHANG);
  }
  EXPECT_EQ(done, pid_) << "the launcher does not end; it has written: " << ended_.out << ended_.err;
  if (done != pid_) return ended_;
  pid_ = 0;
  ended_.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  // What is still in the pipes; who has inherited them is not waited for.
  for (size_t before = std::string::npos; before != ended_.out.size() + ended_.err.size();) {
    before = ended_.out.size() + ended_.err.size();
    read_some(0);
  }
  return ended_;
}

Ended run_launcher(const std::string& script, const LocalPlan& plan, const LaunchTimes& times,
                   RunningLauncher::Output output) {
  return RunningLauncher(script, plan, times, output).wait();
}

int free_port() {
  return Listener(0).port();
}

std::string without_pids(std::string text) {
  for (size_t at = 0; (at = text.find("(pid ", at)) != std::string::npos; ++at) {
    text.erase(at + 5, text.find(')', at) - at - 5);
  }
  return text;
}

std::vector<std::string> sorted_lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  std::ranges::sort(lines);
  return lines;
}

int take_orphans(double patience_seconds) {
  const Stopwatch watch;
  int taken = 0;
  for (;;) {
    const pid_t pid = ::waitpid(-1, nullptr, WNOHANG);
    if (pid > 0) ++taken;
    if (pid < 0) return taken;
    if (pid == 0) {
      if (watch.seconds() > patience_seconds) break;
      ::usleep(2000);
    }
  }
  ADD_FAILURE() << "processes still run";
  return taken;
}

}  // namespace sluice::launch
