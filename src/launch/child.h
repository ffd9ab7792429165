// A process that is started, and its end. It leads a process group of its own, so that Ctrl-C on the terminal reaches
// the launcher alone, which passes on what it gets. It is killed when the thread that started it ends, however that
// ends. Its stdin is empty.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor.h"

namespace sluice::launch {

// Reading and writing end, both closed on exec.
std::pair<Descriptor, Descriptor> make_pipe();

struct ChildSpec {
  std::vector<std::string> command;                        // the path of a program, and its words
  std::vector<std::pair<std::string, std::string>> names;  // set in its environment, which is else this one's
  int out = -1, err = -1;                                  // what its stdout and stderr are to be
  int listener = -1;                                       // stays open in it; -1: none
  // As they were before the launcher blocked and ignored signals for itself.
  sigset_t mask{};
  struct sigaction on_broken_pipe{};
};

// How a process has ended.
struct Ending {
  int code = 0;    // of exit(); meaningless if a signal ended it
  int signal = 0;  // 0: none did

  bool failed() const { return code != 0 || signal != 0; }
  // As a shell says it: 128 + the signal.
  int as_code() const { return signal != 0 ? 128 + signal : code; }
  // "was killed by SIGSEGV (Segmentation fault)", "ended with exit code 2 (a mistake in the command or its files)".
  std::string in_words() const;
};

class Child {
 public:
  // Returns when the program runs. User error where there is none to run, runtime error where the system starts none.
  explicit Child(const ChildSpec& spec);
  // Kills it.
  ~Child();
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  Child& operator=(Child&& other) noexcept;
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // To its whole group.
  void send(int signal) const;
  // Its ending, once: then whatever it has left running in its group is killed.
  std::optional<Ending> ended();

 private:
  void kill_and_reap();

  pid_t pid_ = 0;  // 0: nothing runs
};

}  // namespace sluice::launch
