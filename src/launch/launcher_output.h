// The launcher's stdout and stderr: what its processes write there, and what it says itself.
#pragma once

#include <array>
#include <string>

#include "base/log.h"
#include "launch/output_queue.h"
#include "launch/signal_inbox.h"

namespace sluice::launch {

// A terminal that understands how a line is written over.
bool is_terminal(int number);

class LauncherOutput {
 public:
  // Seconds that a slow reader has from when the processes were asked to end.
  static constexpr double kLastChance = 0.5;

  // `shared`: process 0 runs on this host, and writes to terminals itself.
  explicit LauncherOutput(bool shared);

  // stdout, stderr.
  std::array<OutputQueue, 2>& queues() { return queues_; }
  void write_some();
  // What a slow reader leaves no room for is lost from now on; else the processes wait for it.
  void wait_no_longer();
  // Behind what came before it, in the place of a line of process 0 that is written over. Where nobody reads stderr it
  // waits with the rest.
  void say(log::Level level, const std::string& text);
  // Writes what is left, and returns whether a signal has come, now or (`signalled`) before. From then on the reader
  // has his last chance: he may have stopped reading.
  bool finish(SignalInbox& inbox, bool signalled);
  // The exit code where that of the processes is `code`: 1 in the place of 0 where output was lost to a full disk. Says
  // what was lost.
  int with_losses(int code);

 private:
  bool waits() const;

  std::array<OutputQueue, 2> queues_;
};

}  // namespace sluice::launch
