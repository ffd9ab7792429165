#include "launch/processes.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "comm/sockets/rendezvous.h"
#include "launch/hosts.h"
#include "launch/listener.h"

namespace sluice::launch {
namespace {

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
                    .host = machine_name(),
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
  for (const std::string& text : courier_->exchange(to_text(place_of_process()))) {
    places_.push_back(place_of(text));
    places_.back().host = courier_->members()[places_.size() - 1].host;
  }
}

Processes::~Processes() = default;

std::string Processes::from_first(const std::string& text) const {
  return courier_->exchange(first() ? text : std::string()).front();
}

int Processes::sharing() const {
  return static_cast<int>(std::ranges::count_if(
      places_, [&](const Place& place) { return place == places_[static_cast<size_t>(courier_->self().process)]; }));
}

}  // namespace sluice::launch
