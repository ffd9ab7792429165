#include "launch/local_plan.h"

#include <cstdint>

#include "base/error.h"
#include "base/text.h"
#include "launch/identity.h"

namespace sluice::launch {
namespace {

// Of the command line, else of a name; torchrun's words ("auto", "1:4") are for what this launcher does not do.
std::optional<int> number(std::optional<int> flag, const char* flag_name, const Environment& environment,
                          const char* name, int least) {
  if (flag) {
    if (*flag >= least && *flag <= kMostProcesses) return flag;
    throw user_error("{} {}: a number from {} to {} is expected", flag_name, *flag, least, kMostProcesses)
        .at("command line")
        .advise("mend the option");
  }
  const std::optional<std::string> text = environment.text(name);
  if (!text) return std::nullopt;
  if (text->find_first_not_of("0123456789") != std::string::npos) {
    throw user_error("{}={}: this launcher needs a number", name, printable_line(*text))
        .advise(fmt::format("give it as {} N", flag_name));
  }
  return environment.number(name, least, kMostProcesses);
}

void refuse_several_launchers(const LocalPlan& plan, const Environment& environment) {
  const std::optional<Identity> self = started_by_launcher(environment);
  if (!self) return;
  if (self->local_processes > 1) {
    throw user_error("this launcher is process {} of {} on this host, as {} says", self->local_process,
                     self->local_processes, self->launcher)
        .advise("one on each host is enough; or start the processes of the run without it");
  }
  if (self->processes == plan.nodes) return;
  throw user_error("there are launchers on {} hosts, as {} says, and this one starts processes for {}", self->processes,
                   self->launcher, plan.nodes)
      .advise("give each launcher its own --node-rank, and all the same --nnodes and --master");
}

std::optional<Address> master_of(const LocalPlan& plan, const LaunchFlags& flags, const Environment& environment) {
  if (flags.master) return parse_address(*flags.master, "--master");
  if (plan.nodes == 1) return std::nullopt;
  std::optional<Address> address = address_of(environment, "PET_MASTER_ADDR", "PET_MASTER_PORT");
  if (!address) address = address_of(environment, "MASTER_ADDR", "MASTER_PORT");
  if (address) return address;
  throw user_error("{} hosts and no address of the first: the processes would not find each other", plan.nodes)
      .at("command line")
      .advise("--master HOST:PORT, the same on every host: the host of --node-rank 0, and a port that is free there");
}

}  // namespace

LocalPlan local_plan(const LaunchFlags& flags, const Environment& environment) {
  const std::optional<int> processes = number(flags.processes, "--nproc", environment, "PET_NPROC_PER_NODE", 1);
  if (!processes) {
    throw user_error("how many processes?").at("command line").advise("--nproc N says how many this host has");
  }
  const int nodes = number(flags.nodes, "--nnodes", environment, "PET_NNODES", 1).value_or(1);
  const std::optional<int> node = number(flags.node, "--node-rank", environment, "PET_NODE_RANK", 0);
  if (static_cast<int64_t>(*processes) * nodes > kMostProcesses) {
    throw user_error("{} processes on each of {} hosts: {} are the most", *processes, nodes, kMostProcesses)
        .at("command line")
        .advise("a process may have several ranks, threads of it");
  }
  if (nodes > 1 && !node) {
    throw user_error("{} hosts, and which of them this is was not said", nodes)
        .at("command line")
        .advise(fmt::format("--node-rank N, from 0 to {}, another one on each host", nodes - 1));
  }
  if (node && *node >= nodes) {
    throw user_error("host {} of {}: they are numbered from 0 to {}", *node, nodes, nodes - 1)
        .at("command line")
        .advise("--nnodes N says how many there are");
  }
  if (flags.restarts < 0) {
    throw user_error("--restarts {}: 0 or more is expected", flags.restarts)
        .at("command line")
        .advise("leave it out to start the processes once");
  }
  LocalPlan plan{.processes = *processes, .nodes = nodes, .node = node.value_or(0), .restarts = flags.restarts};
  refuse_several_launchers(plan, environment);
  plan.master = master_of(plan, flags, environment);
  return plan;
}

std::vector<std::pair<std::string, std::string>> names_for(const LocalPlan& plan, int local, const Address& master) {
  return {{"RANK", std::to_string(plan.first() + local)},
          {"WORLD_SIZE", std::to_string(plan.all())},
          {"LOCAL_RANK", std::to_string(local)},
          {"LOCAL_WORLD_SIZE", std::to_string(plan.processes)},
          {"MASTER_ADDR", master.host},
          {"MASTER_PORT", std::to_string(master.port)}};
}

}  // namespace sluice::launch
