#include "launch/identity.h"

#include <vector>

#include "base/error.h"
#include "launch/sources.h"

namespace sluice::launch {
namespace {

using Reader = std::optional<Identity> (*)(const Environment&);
constexpr Reader kReaders[] = {from_torchrun, from_mpi, from_slurm};

// What comes behind the one that is taken may be anything.
std::optional<Identity> if_whole(Reader reader, const Environment& environment) {
  try {
    return reader(environment);
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::string disagreement_of(const Identity& taken, const Environment& environment) {
  for (const Reader reader : kReaders) {
    const std::optional<Identity> other = if_whole(reader, environment);
    if (!other || other->source <= taken.source || other->processes == 1) continue;
    if (other->process == taken.process && other->processes == taken.processes) continue;
    const std::string both =
        fmt::format("process {} of {}, as {} says; {} says {} of {}", taken.process, taken.processes, taken.launcher,
                    other->launcher, other->process, other->processes);
    // One launcher may have started another one's processes, but not fewer than its own.
    if (other->processes > taken.processes && taken.source != Source::flags) {
      throw user_error("{}: so there would be several runs side by side", both)
          .advise(fmt::format("unset the names that {} is not to be known by, which may be left over, or start the "
                              "command without {}",
                              taken.launcher, other->launcher));
    }
    return both;
  }
  return "";
}

// What tells processes where process 0 is.
std::string master_advice(Source source) {
  if (source == Source::slurm) {
    return "in the batch script, before srun: export MASTER_ADDR=$(scontrol show hostnames \"$SLURM_JOB_NODELIST\" | "
           "head -n 1)";
  }
  return "set MASTER_ADDR to the host of process 0, for all processes";
}

std::optional<Address> master_of(const Identity& identity, const IdentityFlags& flags, const Environment& environment) {
  if (flags.master) return parse_address(*flags.master, "--master");
  std::optional<Address> address = address_of(environment, "MASTER_ADDR", "MASTER_PORT");
  if (!address && !identity.by_mpi) {
    throw user_error("{} processes, as {} says, and no MASTER_ADDR: nothing says where process 0 is",
                     identity.processes, identity.launcher)
        .advise(master_advice(identity.source));
  }
  return address;
}

}  // namespace

Identity identify(const IdentityFlags& flags, const Environment& environment) {
  std::optional<Identity> found = from_flags(flags);
  for (const Reader reader : kReaders) {
    if (!found) found = reader(environment);
  }
  if (!found) {
    refuse_unread_launchers(environment);
    found = Identity{.launcher = "no launcher"};
  }
  if (found->processes > 1) found->master = master_of(*found, flags, environment);
  found->disagreement = disagreement_of(*found, environment);
  return *found;
}

std::optional<Identity> started_by_launcher(const Environment& environment) {
  for (const Reader reader : kReaders) {
    if (std::optional<Identity> found = if_whole(reader, environment); found && found->processes > 1) return found;
  }
  return std::nullopt;
}

bool follows_another(const Environment& environment) {
  for (const char* name : {"RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"}) {
    if (const auto value = environment.text(name)) return *value != "0";
  }
  return false;
}

int ranks_of_each(const Identity& identity, int ranks) {
  if (ranks % identity.processes == 0) return ranks / identity.processes;
  std::vector<std::string> fitting;
  for (int processes = 1; processes <= ranks; ++processes) {
    if (ranks % processes == 0) fitting.push_back(std::to_string(processes));
  }
  const int next = (ranks / identity.processes + 1) * identity.processes;
  throw user_error("{} {} cannot be spread equally over the {} processes of {}", ranks, ranks == 1 ? "rank" : "ranks",
                   identity.processes, identity.launcher)
      .advise(fmt::format("take a multiple of {} ranks, such as {}, or start as many processes as divide {}: {}",
                          identity.processes, next, ranks, listed(fitting)));
}

}  // namespace sluice::launch
