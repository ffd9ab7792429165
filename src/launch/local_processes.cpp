#include "launch/local_processes.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "launch/child.h"
#include "launch/launcher_output.h"
#include "launch/line_relay.h"
#include "launch/listener.h"
#include "launch/output_queue.h"
#include "launch/signal_inbox.h"

namespace sluice::launch {
namespace {

// One of a process's two streams, on its way to the launcher's own.
struct Stream {
  Descriptor from{-1};  // -1: there is none, or it has ended
  LineRelay lines{""};
  OutputQueue* to = nullptr;

  // All that is there, unless its target is behind; at the end what the pipe still holds all the same.
  void read(bool at_end = false) {
    std::array<char, 1 << 14> buffer{};
    constexpr int kMostAtEnd = 64;  // reads: who writes on from outside of the group is not waited for
    for (int reads = 0; from.number() >= 0 && (at_end ? reads < kMostAtEnd : !to->full()); ++reads) {
      const ssize_t count = ::read(from.number(), buffer.data(), buffer.size());
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && errno == EAGAIN) break;
      if (count <= 0) {
        from.close();
        break;
      }
      to->add(lines.add({buffer.data(), static_cast<size_t>(count)}), lines.exact());
      to->write_some();
    }
    if (!at_end) return;
    to->add(lines.finish(), lines.exact());
    from.close();
  }
};

struct Process {
  int index = 0;  // among those of the run
  std::array<Stream, 2> streams;
  std::unique_ptr<Child> child = nullptr;  // null: it has ended
};

struct Failure {
  int process = 0;
  pid_t pid = 0;
  Ending ending;
};

// "process 3", "processes 1 and 3".
std::string named(const std::vector<std::string>& processes) {
  return (processes.size() == 1 ? "process " : "processes ") + listed(processes);
}

// All processes of the plan, started once.
class Round {
 public:
  Round(const LocalPlan& plan, double grace_seconds, SignalInbox& inbox, LauncherOutput& output, Hosts& hosts)
      : plan_(plan), grace_seconds_(grace_seconds), inbox_(inbox), output_(output), hosts_(hosts) {}

  // Starts them, as long as there is no signal and no failure, and returns when all have ended.
  void run(const std::vector<std::string>& command, Hosts::Start start) {
    int begun = 0;
    const auto more = [&] { return begun < plan_.processes && !failure_ && !kill_at_ && passed_on_.empty(); };
    while (more() || running() > 0) {
      if (more()) {
        begin(command, begun++, start);
        start.listener.reset();  // it is process 0's
      } else {
        wait();
      }
      look();
    }
  }

  // Of the first that did not end with 0, unless all were ended because of a failure elsewhere.
  Hosts::Outcome outcome() const {
    return {.code = code_, .failed = failure_.has_value(), .signalled = !passed_on_.empty()};
  }

 private:
  // What has happened since.
  void look() {
    for (const int signal : inbox_.take()) pass_on(signal);
    for (Process& process : processes_) {
      for (Stream& stream : process.streams) stream.read();
    }
    note_ended();
    hosts_.read();
    if (const Hosts::Failure* failure = hosts_.elsewhere()) end_because_of(*failure);
    if (kill_at_ && steady_seconds() >= *kill_at_) kill_rest();
    if (last_chance_ && steady_seconds() >= *last_chance_) {
      output_.wait_no_longer();
      last_chance_.reset();
    }
  }

  void begin(const std::vector<std::string>& command, int local, const Hosts::Start& start) {
    Process process{.index = plan_.first() + local, .streams = {}};
    ChildSpec spec{.command = command,
                   .names = names_for(plan_, local, start.master),
                   .mask = inbox_.mask(),
                   .on_broken_pipe = inbox_.on_broken_pipe()};
    std::array<Descriptor, 2> ends{Descriptor(-1), Descriptor(-1)};
    std::array<int, 2> given{};
    for (size_t i = 0; i < given.size(); ++i) {
      Stream& stream = process.streams[i];
      stream.to = &output_.queues()[i];
      given[i] = stream.to->number();
      if (process.index == 0 && is_terminal(given[i])) continue;
      if (process.index > 0) stream.lines = LineRelay(fmt::format("[{}] ", process.index));
      std::tie(stream.from, ends[i]) = make_pipe();
      ::fcntl(stream.from.number(), F_SETFL, O_NONBLOCK);
      given[i] = ends[i].number();
    }
    spec.out = given[0];
    spec.err = given[1];
    if (start.listener && process.index == 0) spec.listener = start.listener->number();
    spec.names.emplace_back(kListenerName, spec.listener >= 0 ? std::to_string(spec.listener) : "");
    process.child = std::make_unique<Child>(spec);
    processes_.push_back(std::move(process));
  }

  size_t running() const {
    return static_cast<size_t>(
        std::ranges::count_if(processes_, [](const Process& each) { return each.child != nullptr; }));
  }

  // Until something is to be done.
  void wait() {
    std::vector<pollfd> all{{.fd = inbox_.descriptor(), .events = POLLIN, .revents = 0}};
    for (const Process& process : processes_) {
      for (const Stream& stream : process.streams) {
        if (stream.from.number() >= 0 && !stream.to->full()) {
          all.push_back({.fd = stream.from.number(), .events = POLLIN, .revents = 0});
        }
      }
    }
    for (const OutputQueue& output : output_.queues()) {
      if (!output.empty()) all.push_back({.fd = output.number(), .events = POLLOUT, .revents = 0});
    }
    hosts_.watch(all);
    constexpr double kMilliseconds = 1000;
    // Launchers of other hosts may fail to say something.
    int patience = plan_.nodes > 1 ? static_cast<int>(kMilliseconds) : -1;
    for (const std::optional<double>& moment : {kill_at_, last_chance_}) {
      if (!moment) continue;
      const int left = static_cast<int>(std::max(0.0, *moment - steady_seconds()) * kMilliseconds) + 1;
      patience = patience < 0 ? left : std::min(patience, left);
    }
    ::poll(all.data(), all.size(), patience);
    output_.write_some();
  }

  void pass_on(int signal) {
    if (signal != SIGTSTP) passed_on_.push_back(signal);
    send_all(signal);
    if (signal != SIGTSTP) return end_soon();
    // The shell waits for the launcher to stop; it goes on with all.
    ::raise(SIGSTOP);
    send_all(SIGCONT);
  }

  // A process that waits for a reader who has stopped reading would not heed what it was sent.
  void end_soon() {
    if (!last_chance_) last_chance_ = steady_seconds() + LauncherOutput::kLastChance;
  }

  void send_all(int signal) const {
    for (const Process& process : processes_) {
      if (process.child) process.child->send(signal);
    }
  }

  // Whether it ended as one does that was asked to.
  bool as_asked(const Ending& ending) const {
    return std::ranges::any_of(passed_on_, [&](int signal) { return ending.as_code() == 128 + signal; });
  }

  void note_ended() {
    std::optional<Failure> first;
    for (Process& process : processes_) {
      if (!process.child) continue;
      const pid_t pid = process.child->pid();
      const std::optional<Ending> ending = process.child->ended();
      if (!ending) continue;
      process.child.reset();
      for (Stream& stream : process.streams) stream.read(true);
      if (!ending->failed()) continue;
      if (as_asked(*ending)) {
        if (code_ == 0) code_ = ending->as_code();
        continue;
      }
      if (ended_elsewhere_) continue;
      // Of several that are found at once one that was killed is the cause, since others fail by missing it.
      if (!first || (first->ending.signal == 0 && ending->signal != 0)) first = Failure{process.index, pid, *ending};
    }
    if (first && !failure_) fail(*first);
  }

  void fail(const Failure& failure) {
    failure_ = failure;
    if (code_ == 0) code_ = failure.ending.as_code();
    const std::string what = fmt::format("process {} of {} (pid {}) {}", failure.process, plan_.all(), failure.pid,
                                         failure.ending.in_words());
    hosts_.tell({.code = failure.ending.as_code(), .text = what});
    end_rest(what);
  }

  void end_because_of(const Hosts::Failure& failure) {
    if (failure_ || ended_elsewhere_ || running() == 0) return;
    ended_elsewhere_ = true;
    end_rest(failure.text);
  }

  // Those that still run, because of `what`, which is said.
  void end_rest(const std::string& what) {
    const size_t others = running();
    const std::string rest =
        others == 0 ? "" : fmt::format("; ending the {} that still {}", others, others == 1 ? "runs" : "run");
    output_.say(log::Level::error, what + rest);
    if (others == 0) return;
    send_all(SIGTERM);
    end_soon();
    // One that was stopped would not hear it.
    send_all(SIGCONT);
    kill_at_ = steady_seconds() + grace_seconds_;
  }

  void kill_rest() {
    std::vector<std::string> left;
    for (const Process& process : processes_) {
      if (process.child) left.push_back(std::to_string(process.index));
    }
    if (!left.empty()) {
      output_.say(log::Level::warn, fmt::format("{} did not end within {:g} s and {} killed", named(left),
                                                grace_seconds_, left.size() == 1 ? "is" : "are"));
    }
    send_all(SIGKILL);
    kill_at_.reset();
  }

  const LocalPlan& plan_;
  double grace_seconds_;
  SignalInbox& inbox_;
  LauncherOutput& output_;
  Hosts& hosts_;
  std::vector<Process> processes_;
  std::vector<int> passed_on_;
  std::optional<Failure> failure_;
  bool ended_elsewhere_ = false;       // what they end with from then on says nothing
  std::optional<double> kill_at_;      // when those that still run are killed
  std::optional<double> last_chance_;  // of a slow reader
  int code_ = 0;
};

// Until something has come from another launcher, or `inbox` has a signal, which is returned.
int wait_for_hosts(Hosts& hosts, SignalInbox& inbox) {
  std::vector<pollfd> all{{.fd = inbox.descriptor(), .events = POLLIN, .revents = 0}};
  hosts.watch(all);
  constexpr int kMilliseconds = 100;
  ::poll(all.data(), all.size(), kMilliseconds);
  for (const int signal : inbox.take()) {
    if (signal != SIGTSTP) return signal;
    ::raise(SIGSTOP);
  }
  hosts.read();
  return 0;
}

}  // namespace

int run_processes(const std::vector<std::string>& command, const LocalPlan& plan, const LaunchTimes& times) {
  constexpr int kBySignal = 128;
  SignalInbox inbox;
  LauncherOutput output(plan.first() == 0);
  const std::unique_ptr<Hosts> hosts =
      make_hosts(plan, times, [&](log::Level level, const std::string& text) { output.say(level, text); });
  for (int restart = 1;; ++restart) {
    std::optional<Hosts::Start> start;
    while (!(start = hosts->start())) {
      if (const int signal = wait_for_hosts(*hosts, inbox); signal != 0) return kBySignal + signal;
    }
    Round round(plan, times.grace_s, inbox, output, *hosts);
    round.run(command, std::move(*start));
    Hosts::Outcome outcome = round.outcome();
    outcome.signalled = output.finish(inbox, outcome.signalled);
    hosts->tell_over(outcome);
    std::optional<Hosts::Decision> decision;
    while (!(decision = hosts->decision())) {
      const int signal = wait_for_hosts(*hosts, inbox);
      if (signal != 0) return output.with_losses(outcome.code != 0 ? outcome.code : kBySignal + signal);
    }
    if (!decision->again) return output.with_losses(outcome.code != 0 ? outcome.code : decision->code);
    output.say(log::Level::warn,
               fmt::format("restart {} of {}: {} started again", restart, plan.restarts,
                           plan.all() == 1 ? "the process is" : fmt::format("all {} processes are", plan.all())));
  }
}

}  // namespace sluice::launch
