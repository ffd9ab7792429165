#include "launch/processes.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <optional>

#include "base/error.h"
#include "comm/sockets/rendezvous.h"
#include "launch/listener.h"

namespace sluice::launch {
namespace {

std::string host_name() {
  std::array<char, HOST_NAME_MAX + 1> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "?";
  return name.data();
}

// The processors that this process may run on, as text.
std::string affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return "";
  std::string text;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) text += fmt::format("{},", cpu);
  }
  return text;
}

std::optional<Listener> listener_of(const Identity& identity, const Environment& environment) {
  if (identity.process != 0) return std::nullopt;
  std::optional<Descriptor> inherited = inherited_listener(environment, identity.master->port);
  if (!inherited) return std::nullopt;
  return Listener(std::move(*inherited), identity.master->port);
}

}  // namespace

Processes::Processes(const Identity& identity, const Environment& environment, const Job& job) {
  const int each = ranks_of_each(identity, job.ranks);
  const Member self{.process = identity.process,
                    .host = host_name(),
                    .first_rank = identity.process * each,
                    .ranks = each,
                    .common = job.common};
  std::vector<Member> members;
  std::unique_ptr<Wire> wire;
  if (identity.by_mpi) {
    mpi_ = mpi::start({.process = identity.process,
                       .processes = identity.processes,
                       .local_processes = identity.local_processes,
                       .threads = each});
    wire = mpi_->connect(self, job.ranks, members);
  } else {
    wire =
        connect_by_sockets({.host = identity.master->host, .port = identity.master->port, .timeout_s = job.timeout_s},
                           self, identity.processes, job.ranks, members, listener_of(identity, environment));
  }
  courier_ = std::make_unique<Courier>(std::move(wire), std::move(members), job.timeout_s);
}

Processes::~Processes() = default;

std::string Processes::from_first(const std::string& text) const {
  return courier_->exchange(first() ? text : std::string()).front();
}

int Processes::sharing() const {
  const std::string mine = fmt::format("{} on {}", affinity(), courier_->self().host);
  const std::vector<std::string> all = courier_->exchange(mine);
  return static_cast<int>(std::ranges::count(all, mine));
}

}  // namespace sluice::launch
