// The processes that run one command together. That with rank 0 speaks and writes; the others say only what goes wrong
// with them.
#pragma once

#include <optional>
#include <string>

#include "config/config.h"
#include "launch/launcher.h"
#include "launch/processes.h"

namespace sluice::cli {

class JobProcesses {
 public:
  // Finds out who this process is by its environment.
  JobProcesses();

  bool several() const { return identity_.processes > 1; }
  // Whether this process has rank 0.
  bool first() const { return identity_.process == 0; }
  // Waits for the others, where there are any: all must have the same configuration and `words` of the command line.
  void connect(const Config& config, const std::string& words, int ranks);
  // Gives the options the way to the other processes, and of the cores that several may use this one's share.
  void share(LaunchOptions& options, const Config& config);
  // How many processes have such a share.
  int sharing() const { return sharing_; }
  // The first process's text, in all of them; alone it is its own.
  std::string from_first(const std::string& text) const;

  // Of the ranks, those on this host.
  double share_of_host() const;
  // "8 ranks in 4 processes on 2 hosts"
  std::string describe() const;

  // To be called with what ends this process before its end: the others end too. Whether it is this process's own, to
  // be said by it; the first one says everybody's.
  bool tell(const Error& failure) const;

 private:
  launch::Environment environment_ = launch::Environment::of_process();
  launch::Identity identity_;
  std::optional<launch::Processes> processes_;
  int sharing_ = 1;
};

// User error where a launcher has started several processes of a command that runs in one.
void refuse_several_processes(const std::string& command);

}  // namespace sluice::cli
