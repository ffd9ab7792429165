#include "cli/job_processes.h"

#include <algorithm>
#include <csignal>
#include <set>

#include "base/log.h"
#include "base/thread_signals.h"
#include "cli/version.h"
#include "machine/machine_info.h"

namespace sluice::cli {
namespace {

// Threads that begin meanwhile get no signals: they are this program's to hear.
class SignalsHeld {
 public:
  SignalsHeld() {
    pthread_sigmask(SIG_SETMASK, nullptr, &before_);
    block_signals();
  }
  ~SignalsHeld() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;
  SignalsHeld(SignalsHeld&&) = delete;
  SignalsHeld& operator=(SignalsHeld&&) = delete;

 private:
  sigset_t before_{};
};

std::string plural(size_t count, const std::string& thing, const std::string& ending) {
  return fmt::format("{} {}{}", count, thing, count == 1 ? "" : ending);
}

}  // namespace

JobProcesses::JobProcesses() : identity_(launch::identify({}, environment_)) {
  if (!first()) log::set_level(log::Level::error);
  if (!identity_.disagreement.empty()) log::info("{}", identity_.disagreement);
}

void JobProcesses::connect(const Config& config, const std::string& words, int ranks) {
  if (!several()) return;
  const launch::Processes::Job job{.ranks = ranks,
                                   .common = {{"version", std::string(version())},
                                              {"command line", words},
                                              {"configuration", config::to_yaml(config)}},
                                   .timeout_s = config.watchdog_seconds()};
  const SignalsHeld held;
  processes_.emplace(identity_, environment_, job);
}

void JobProcesses::share(LaunchOptions& options, const Config& config) {
  if (!processes_) return;
  options.courier = &processes_->courier();
  sharing_ = processes_->sharing();
  if (!config.runtime.threads) options.threads = std::max(1, usable_cores() / sharing_);
}

std::string JobProcesses::from_first(const std::string& text) const {
  return processes_ ? processes_->from_first(text) : text;
}

double JobProcesses::share_of_host() const {
  if (!processes_) return 1;
  const Courier& courier = processes_->courier();
  int here = 0;
  for (const Member& member : courier.members()) {
    if (member.host == courier.self().host) here += member.ranks;
  }
  return static_cast<double>(here) / courier.world();
}

std::string JobProcesses::describe() const {
  std::set<std::string> hosts;
  for (const Member& member : processes_->courier().members()) hosts.insert(member.host);
  return fmt::format("{} in {} on {}", plural(static_cast<size_t>(processes_->courier().world()), "rank", "s"),
                     plural(processes_->courier().members().size(), "process", "es"),
                     plural(hosts.size(), "host", "s"));
}

bool JobProcesses::tell(const Error& failure) const {
  if (!processes_) return true;
  Courier& courier = processes_->courier();
  if (courier.failed_elsewhere()) return first();
  courier.tell_failure(courier.self().first_rank, failure);
  return true;
}

void refuse_several_processes(const std::string& command) {
  const launch::Identity identity = launch::identify({}, launch::Environment::of_process());
  if (identity.processes == 1) return;
  throw user_error("sluice {} runs in one process, and {} has started {}", command, identity.launcher,
                   identity.processes)
      .advise("start it without the launcher; sluice train is what several processes run");
}

}  // namespace sluice::cli
