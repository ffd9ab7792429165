#include "launch/child.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "base/error.h"

namespace sluice::launch {
namespace {

// All that the child needs, made before the fork: in a copy of a process that may have threads nothing may be
// allocated.
struct Prepared {
  explicit Prepared(const ChildSpec& spec) : words(spec.command) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string_view text = *entry;
      bool replaced = false;
      for (const auto& [name, value] : spec.names) replaced |= text.substr(0, text.find('=')) == name;
      if (!replaced) entries.emplace_back(text);
    }
    for (const auto& [name, value] : spec.names) entries.push_back(fmt::format("{}={}", name, value));
    for (std::string& word : words) argv.push_back(word.data());
    for (std::string& entry : entries) envp.push_back(entry.data());
    argv.push_back(nullptr);
    envp.push_back(nullptr);
  }

  std::vector<std::string> words, entries;
  std::vector<char*> argv, envp;
};

// In the child; returns only if there is no program to become. Only calls that are safe between fork and exec.
void become(const ChildSpec& spec, const Prepared& prepared, pid_t launcher, int nothing) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may be gone already.
  if (::getppid() != launcher) ::kill(::getpid(), SIGKILL);
  ::sigaction(SIGPIPE, &spec.on_broken_pipe, nullptr);
  // Not of the terminal's foreground group, it may write there all the same.
  ::signal(SIGTTOU, SIG_IGN);
  ::sigprocmask(SIG_SETMASK, &spec.mask, nullptr);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(spec.out, STDOUT_FILENO);
  ::dup2(spec.err, STDERR_FILENO);
  if (spec.listener >= 0) ::fcntl(spec.listener, F_SETFD, 0);
  ::execve(prepared.argv[0], prepared.argv.data(), prepared.envp.data());
}

std::string signal_words(int signal) {
  const char* name = sigabbrev_np(signal);
  const char* meaning = sigdescr_np(signal);
  if (name == nullptr || meaning == nullptr) return fmt::format("signal {}", signal);
  if (signal == SIGKILL) return "SIGKILL (sent by hand, by a scheduler, or by the system when memory ran out)";
  return fmt::format("SIG{} ({})", name, meaning);
}

}  // namespace

std::pair<Descriptor, Descriptor> make_pipe() {
  std::array<int, 2> ends{-1, -1};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) {
    throw runtime_failure("cannot open a pipe: {}", std::generic_category().message(errno))
        .advise("start fewer processes, or raise the limit of open files (ulimit -n)");
  }
  return {Descriptor(ends[0]), Descriptor(ends[1])};
}

std::string Ending::in_words() const {
  constexpr int kBySignal = 128, kUsersMistake = 2;
  if (signal != 0) return "was killed by " + signal_words(signal);
  if (code == kUsersMistake) return "ended with exit code 2 (a mistake in the command or its files)";
  if (code > kBySignal && sigabbrev_np(code - kBySignal) != nullptr) {
    return fmt::format("ended with exit code {} (after SIG{})", code, sigabbrev_np(code - kBySignal));
  }
  return fmt::format("ended with exit code {}", code);
}

Child::Child(const ChildSpec& spec) {
  const Prepared prepared(spec);
  const Descriptor nothing("/dev/null", O_RDONLY, "open");
  auto [failure, failed] = make_pipe();
  const pid_t launcher = ::getpid();
  const pid_t forked = ::fork();
  if (forked < 0) {
    throw runtime_failure("cannot start a process: {}", std::generic_category().message(errno))
        .advise("start fewer of them, or raise the limit (ulimit -u)");
  }
  if (forked == 0) {
    become(spec, prepared, launcher, nothing.number());
    const int code = errno;
    // It ends without running anything of the launcher's.
    if (::write(failed.number(), &code, sizeof code) >= 0) ::kill(::getpid(), SIGKILL);
    ::kill(::getpid(), SIGKILL);
  }
  pid_ = forked;
  ::setpgid(pid_, pid_);
  failed.close();
  int code = 0;
  ssize_t count = 0;
  do count = ::read(failure.number(), &code, sizeof code);
  while (count < 0 && errno == EINTR);
  if (count == sizeof code) {
    kill_and_reap();
    throw system_failure("run", spec.command.front(), code);
  }
}

Child::~Child() {
  if (pid_ != 0) kill_and_reap();
}

Child& Child::operator=(Child&& other) noexcept {
  std::swap(pid_, other.pid_);
  return *this;
}

void Child::send(int signal) const {
  if (pid_ != 0) ::kill(-pid_, signal);
}

void Child::kill_and_reap() {
  send(SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
}

std::optional<Ending> Child::ended() {
  if (pid_ == 0) return std::nullopt;
  siginfo_t information{};
  // Until it is waited for its number, and so its group's, can be no other's.
  if (::waitid(P_PID, static_cast<id_t>(pid_), &information, WEXITED | WNOHANG | WNOWAIT) != 0 ||
      information.si_pid == 0) {
    return std::nullopt;
  }
  Ending ending;
  (information.si_code == CLD_EXITED ? ending.code : ending.signal) = information.si_status;
  kill_and_reap();
  return ending;
}

}  // namespace sluice::launch
