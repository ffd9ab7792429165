#include "cli/job_processes.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <set>
#include <thread>

#include "base/log.h"
#include "base/thread_signals.h"
#include "cli/version.h"
#include "comm/processes/members.h"
#include "config/load.h"
#include "machine/machine_info.h"

namespace sluice::cli {
namespace {

// In which a launcher ends the others where the first process has failed.
constexpr std::chrono::seconds kMoment{1};

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

int JobProcesses::run(const launch::IdentityFlags& flags, const std::function<int(JobProcesses& processes)>& body) {
  JobProcesses processes(flags);
  try {
    return body(processes);
  } catch (const Error& error) {
    if (!processes.processes_ && !processes.first()) std::this_thread::sleep_for(kMoment);
    if (processes.tell(error)) throw;
    // Who says it is not to be ended before that.
    std::this_thread::sleep_for(kMoment);
    return error.kind() == ErrorKind::user ? 2 : 1;
  } catch (const std::exception& error) {
    processes.tell(runtime_failure("{}", error.what()));
    throw;
  }
}

JobProcesses::JobProcesses(const launch::IdentityFlags& flags) : identity_(launch::identify(flags, environment_)) {
  if (!first()) log::set_level(log::Level::error);
  if (identity_.disagreement.empty()) return;
  if (identity_.source == launch::Source::flags) {
    log::warn("{}", identity_.disagreement);
  } else {
    log::info("{}", identity_.disagreement);
  }
}

void JobProcesses::connect(const Meeting& meeting) {
  if (!several()) {
    if (identity_.source != launch::Source::alone) warn_of_binding({launch::place_of_process()}, meeting.threads);
    return;
  }
  const launch::Processes::Job job{.ranks = meeting.ranks,
                                   .common = {{"version", std::string(version())},
                                              {"command line", meeting.words},
                                              {"configuration", meeting.configuration}},
                                   .timeout_s = meeting.timeout_s};
  const SignalsHeld held;
  processes_.emplace(identity_, environment_, job);
  if (!first()) return;
  log::info("{}", describe());
  warn_of_binding(processes_->places(), meeting.threads);
}

void JobProcesses::share(LaunchOptions& options, const Config& config) {
  if (!processes_) return;
  options.courier = &processes_->courier();
  options.local_process = identity_.local_process;
  options.local_processes = identity_.local_processes;
  if (identity_.master) options.master = identity_.master->host;
  options.sharing = processes_->sharing();
  if (!config.runtime.threads) options.threads = std::max(1, usable_cores() / options.sharing);
}

void JobProcesses::warn_of_binding(const std::vector<launch::Place>& places, std::optional<int64_t> threads) const {
  if (const std::string note = launch::binding_note(places, threads, identity_.source); !note.empty()) {
    log::warn("{}", note);
  }
}

std::string JobProcesses::from_first(const std::string& text) const {
  return processes_ ? processes_->from_first(text) : text;
}

void JobProcesses::require_same(const std::map<std::string, std::string>& values) const {
  if (!processes_) return;
  const Courier& courier = processes_->courier();
  Member mine = courier.self();
  mine.common.assign(values.begin(), values.end());
  std::vector<Member> members;
  for (const std::string& line : processes_->courier().exchange(to_line(mine))) {
    require(from_line(line, members.emplace_back()), "what a process has said of its data is no introduction");
  }
  check_members(members, courier.world());
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
  if (courier.failed_elsewhere()) return courier.first_alive();
  courier.tell_failure(courier.self().first_rank, failure);
  return true;
}

std::string settings_of(const Config& config) {
  std::string text;
  for (const auto& [key, value] : config::values(config)) text += fmt::format("{}: {}\n", key, value);
  return text;
}

void add_identity(Command& command, launch::IdentityFlags& flags) {
  const std::vector<Option> options = {
      {"--process", &flags.process, "which process of the job this is, from 0 (default: as its launcher says)", "N"},
      {"--processes", &flags.processes, "how many there are", "N"},
      {"--local-process", &flags.local_process, "which of this host's processes it is, from 0", "N"},
      {"--local-processes", &flags.local_processes, "how many this host has", "N"},
      {"--master", &flags.master, "where process 0 is found (default: MASTER_ADDR, MASTER_PORT)", "HOST:PORT"}};
  command.options.insert(command.options.end(), options.begin(), options.end());
}

void let_the_first_speak() {
  if (launch::follows_another(launch::Environment::of_process())) std::this_thread::sleep_for(kMoment);
}

void refuse_several_processes(const std::string& command) {
  const launch::Identity identity = launch::identify({}, launch::Environment::of_process());
  if (identity.processes == 1) return;
  throw user_error("sluice {} runs in one process, and {} has started {}", command, identity.launcher,
                   identity.processes)
      .advise("start it without the launcher; train, bench and eval are what several processes run");
}

}  // namespace sluice::cli
