// The processes that run one command together. That with rank 0 speaks and writes; the others say only what goes wrong
// with them.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "cli/command.h"
#include "config/config.h"
#include "launch/launcher.h"
#include "launch/processes.h"

namespace sluice::cli {

class JobProcesses {
 public:
  // Finds out who this process is, by the command line or its environment, and does `body`. What ends it before its end
  // is told to the others, which end too, and thrown where it is this process's to say: the first that is alive says
  // everybody's.
  // Returns the exit code.
  static int run(const launch::IdentityFlags& flags, const std::function<int(JobProcesses& processes)>& body);

  bool several() const { return identity_.processes > 1; }
  // Whether this process has rank 0.
  bool first() const { return identity_.process == 0; }
  struct Meeting {
    std::string configuration, words;     // which all must have: settings_of, the words of the command line
    int ranks = 1;                        // of the job
    std::optional<int64_t> threads = {};  // that each process is to have; none: its share of the cores
    double timeout_s = 600;
  };
  // Waits for the others, where there are any. The first says who they are, and where a launcher keeps them from
  // processors that they would use.
  void connect(const Meeting& meeting);
  // Gives the options the way to the other processes, and of the cores that several use this one's share.
  void share(LaunchOptions& options, const Config& config);
  int count() const { return identity_.processes; }
  // User error, in all of them, where a process has other values than the others: what -> value. All call it.
  void require_same(const std::map<std::string, std::string>& values) const;
  // The first process's text, in all of them; alone it is its own.
  std::string from_first(const std::string& text) const;

 private:
  explicit JobProcesses(const launch::IdentityFlags& flags);
  // Whether a failure is this process's to say.
  bool tell(const Error& failure) const;
  // "8 ranks in 4 processes on 2 hosts"
  std::string describe() const;
  void warn_of_binding(const std::vector<launch::Place>& places, std::optional<int64_t> threads) const;

  launch::Environment environment_ = launch::Environment::of_process();
  launch::Identity identity_;
  std::optional<launch::Processes> processes_;
};

// All settings, a line each: the same for the same run, whatever else its file says.
std::string settings_of(const Config& config);

// The options that say who this process is, at the end of a command's.
void add_identity(Command& command, launch::IdentityFlags& flags);

// Where a launcher has started several processes of this program, all but the first wait a moment: with the same
// mistake in their command or its files the first says it for all, and the launcher ends them. A mistake that it has
// not they say themselves.
void let_the_first_speak();

// User error where a launcher has started several processes of a command that runs in one.
void refuse_several_processes(const std::string& command);

}  // namespace sluice::cli
