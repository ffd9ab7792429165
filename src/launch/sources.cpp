#include "launch/sources.h"

#include <charconv>
#include <cstdint>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace sluice::launch {
namespace {

// What the four numbers are called where they were read.
struct Names {
  std::string process, processes, local_process, local_processes;
};

void check(const Identity& identity, const Names& names) {
  const std::string advice = "one launcher sets all of them; start every process of the run by the same one";
  const auto check_index = [&](int index, const std::string& index_name, int count, const std::string& count_name) {
    if (index < count) return;
    throw user_error("{} is {} and {} is {}: they are numbered from 0 to {}", index_name, index, count_name, count,
                     count - 1)
        .advise(advice);
  };
  check_index(identity.process, names.process, identity.processes, names.processes);
  check_index(identity.local_process, names.local_process, identity.local_processes, names.local_processes);
  if (identity.local_processes > identity.processes) {
    throw user_error("{} is {}, more than {}, {}", names.local_processes, identity.local_processes, names.processes,
                     identity.processes)
        .advise(advice);
  }
}

// "is" or "are".
std::string_view verb(const std::string& list) {
  return list.find(" and ") == std::string::npos ? "is" : "are";
}

Error half_set(const std::string& set, const std::string& unset) {
  return user_error("{} {} set, {} {} not", set, verb(set), unset, verb(unset));
}

int count_of(const Environment& environment, const std::string& name) {
  return environment.number(name, 1, kMostProcesses).value_or(1);
}

int index_of(const Environment& environment, const std::string& name) {
  return environment.number(name, 0, kMostProcesses - 1).value_or(0);
}

Identity read(const Environment& environment, const Names& names) {
  Identity identity;
  identity.process = index_of(environment, names.process);
  identity.processes = count_of(environment, names.processes);
  identity.local_process = index_of(environment, names.local_process);
  identity.local_processes = count_of(environment, names.local_processes);
  check(identity, names);
  return identity;
}

// Whether a launcher is to start several processes on this host. Words such as "auto" leave it open.
bool wants_several_here(const Environment& environment) {
  const std::optional<std::string> count = environment.text("PET_NPROC_PER_NODE");
  return count && count->find_first_not_of("0123456789") == std::string::npos && *count != "1";
}

// Kubeflow tells a pod RANK and WORLD_SIZE without the local two. Where the pod has one process they are those of
// processes; where a launcher is to start several, RANK counts pods, and WORLD_SIZE pods or processes.
bool pod_of_one_process(const Environment& environment) {
  if (wants_several_here(environment)) {
    throw user_error("{} are a pod's, in which a launcher is to start {} processes",
                     environment.set_of({"RANK", "WORLD_SIZE", "PET_NNODES", "PET_NPROC_PER_NODE"}),
                     *environment.text("PET_NPROC_PER_NODE"))
        .advise("start the command by sluice launch, which reads these names");
  }
  const std::optional<std::string> pods = environment.text("PET_NNODES");
  const std::optional<std::string> pod = environment.text("PET_NODE_RANK");
  const std::optional<std::string> rank = environment.text("RANK");
  return pods == environment.text("WORLD_SIZE") && (!pod || pod == rank);
}

// Steps that are none of srun's have numbers above it, or words: "batch", "extern", "interactive".
constexpr uint32_t kMostSteps = 0xfffffff0;

bool is_step(std::string_view id) {
  uint32_t number = 0;
  const auto [end, failure] = std::from_chars(id.data(), id.data() + id.size(), number);
  return failure == std::errc() && end == id.data() + id.size() && number < kMostSteps;
}

// Tasks of each node of "2(x2),1": 2, 2, 1; empty if it is none such.
std::vector<int> tasks_per_node(std::string_view text) {
  std::vector<int> tasks;
  const char* const end = text.data() + text.size();
  for (const char* at = text.data();; ++at) {
    int count = 0, nodes = 1;
    auto read_to = std::from_chars(at, end, count);
    if (read_to.ec != std::errc() || count < 1) return {};
    at = read_to.ptr;
    if (end - at > 2 && at[0] == '(' && at[1] == 'x') {
      read_to = std::from_chars(at + 2, end, nodes);
      if (read_to.ec != std::errc() || nodes < 1 || read_to.ptr == end || *read_to.ptr != ')') return {};
      at = read_to.ptr + 1;
    }
    if (nodes > kMostProcesses - static_cast<int>(tasks.size())) return {};
    tasks.insert(tasks.end(), static_cast<size_t>(nodes), count);
    if (at == end) return tasks;
    if (*at != ',') return {};
  }
}

// sbatch passes on the names of the step it is called in, and a batch script has new ones of the job alone.
void refuse_left_over_step(const Environment& environment) {
  const std::optional<std::string> now = environment.text("SLURM_TASKS_PER_NODE");
  if (!now || now == environment.text("SLURM_STEP_TASKS_PER_NODE")) return;
  throw user_error("{} are not of one step: the job was submitted from within a step, whose names are left over",
                   environment.set_of({"SLURM_TASKS_PER_NODE", "SLURM_STEP_TASKS_PER_NODE"}))
      .advise(
          "in the batch script: unset SLURM_STEP_ID SLURM_STEPID; srun sets them for its tasks (without its option -E, "
          "which would pass on the job's numbers)");
}

// The tasks of this host's part of the step.
int slurm_local_tasks(const Environment& environment, int node) {
  const std::string text = environment.text("SLURM_STEP_TASKS_PER_NODE").value_or("");
  const std::vector<int> tasks = tasks_per_node(text);
  if (tasks.empty()) {
    throw user_error("SLURM_STEP_TASKS_PER_NODE={}: a list such as 2(x2),1 is expected", printable_line(text))
        .advise("srun sets it; where a script does, leave it to srun");
  }
  if (node >= static_cast<int>(tasks.size())) {
    throw user_error("SLURM_NODEID={}, and SLURM_STEP_TASKS_PER_NODE={} is of {} {}", node, text, tasks.size(),
                     tasks.size() == 1 ? "node" : "nodes")
        .advise("srun sets both; where a script does, leave them to srun");
  }
  return tasks[static_cast<size_t>(node)];
}

}  // namespace

std::optional<Identity> from_flags(const IdentityFlags& flags) {
  const std::pair<const char*, std::optional<int>> given[] = {{"--process", flags.process},
                                                              {"--processes", flags.processes},
                                                              {"--local-process", flags.local_process},
                                                              {"--local-processes", flags.local_processes}};
  std::vector<std::string> set, unset;
  for (const auto& [name, value] : given) {
    if (!value) {
      unset.emplace_back(name);
      continue;
    }
    set.push_back(fmt::format("{} {}", name, *value));
    const bool counts = std::string_view(name).ends_with("es");
    if (*value < (counts ? 1 : 0) || *value >= kMostProcesses) {
      throw user_error("{}: a number from {} is expected", set.back(), counts ? 1 : 0)
          .at("command line")
          .advise("start it anew with one that is");
    }
  }
  if (set.empty()) return std::nullopt;
  const bool alone = flags.process == 0 && flags.processes == 1;
  if (!unset.empty() && !alone) {
    throw half_set(listed(set), listed(unset))
        .at("command line")
        .advise("give all four, or none: then the launcher's names are read");
  }
  Identity identity;
  identity.process = flags.process.value_or(0);
  identity.processes = flags.processes.value_or(1);
  identity.local_process = flags.local_process.value_or(0);
  identity.local_processes = flags.local_processes.value_or(1);
  identity.source = Source::flags;
  identity.launcher = "the command line";
  check(identity, {"--process", "--processes", "--local-process", "--local-processes"});
  return identity;
}

std::optional<Identity> from_torchrun(const Environment& environment) {
  const auto all = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"};
  const std::string set = environment.set_of(all);
  const std::string unset = environment.unset_of(all);
  if (set.empty()) return std::nullopt;
  const bool no_local = unset == "LOCAL_RANK and LOCAL_WORLD_SIZE";
  const bool one_each = no_local && (pod_of_one_process(environment) || count_of(environment, "WORLD_SIZE") == 1);
  if (no_local && !one_each) {
    throw half_set(set, unset)
        .advise(
            "where each host has one process, set LOCAL_RANK=0 LOCAL_WORLD_SIZE=1; else start the processes by "
            "torchrun "
            "or sluice launch, which set all four");
  }
  if (!unset.empty() && !one_each) {
    const auto taken = from_mpi(environment).has_value()     ? "mpirun's names"
                       : from_slurm(environment).has_value() ? "srun's names"
                                                             : "nothing";
    throw half_set(set, unset)
        .advise(fmt::format("set all of RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, or none: then {} {} read",
                            taken, std::string_view(taken) == "nothing" ? "is" : "are"));
  }
  Identity identity = read(environment, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"});
  identity.source = Source::torchrun;
  identity.launcher = environment.has("TORCHELASTIC_RUN_ID") ? "torchrun (RANK)" : "the environment (RANK)";
  return identity;
}

std::optional<Identity> from_mpi(const Environment& environment) {
  const auto all = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                    "OMPI_COMM_WORLD_LOCAL_SIZE"};
  const std::string set = environment.set_of(all);
  if (set.empty()) return std::nullopt;
  if (const std::string unset = environment.unset_of(all); !unset.empty()) {
    throw half_set(set, unset)
        .advise("mpirun sets all four; where a container or a script passes some of them on, let it pass all or none");
  }
  Identity identity = read(environment, {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                                         "OMPI_COMM_WORLD_LOCAL_SIZE"});
  identity.source = Source::mpi;
  identity.by_mpi = true;
  identity.launcher = "mpirun (OMPI_COMM_WORLD_RANK)";
  return identity;
}

std::optional<Identity> from_slurm(const Environment& environment) {
  const std::string step_name = environment.has("SLURM_STEP_ID") ? "SLURM_STEP_ID" : "SLURM_STEPID";
  const std::optional<std::string> step = environment.text(step_name);
  const std::string advice =
      "srun sets it; where a container or a script passes on some of Slurm's names, let it pass on all or none";
  if (!step || !is_step(*step)) {
    // A batch script is task 0 of itself.
    if (step || environment.text("SLURM_PROCID").value_or("0") == "0") return std::nullopt;
    throw half_set(environment.set_of({"SLURM_PROCID"}), "SLURM_STEP_ID").advise(advice);
  }
  const char* const tasks = environment.has("SLURM_STEP_NUM_TASKS") ? "SLURM_STEP_NUM_TASKS" : "SLURM_NTASKS";
  const std::string set = environment.set_of({step_name.c_str(), "SLURM_PROCID", tasks});
  if (const std::string unset = environment.unset_of({"SLURM_PROCID", tasks}); !unset.empty()) {
    throw half_set(set, unset).advise(advice);
  }
  Identity identity;
  identity.source = Source::slurm;
  identity.by_mpi = environment.has("PMIX_RANK");
  identity.launcher = "srun (SLURM_PROCID)";
  identity.process = index_of(environment, "SLURM_PROCID");
  identity.processes = count_of(environment, tasks);
  if (identity.processes > 1) {
    const auto local = {"SLURM_LOCALID", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE"};
    if (const std::string unset = environment.unset_of(local); !unset.empty())
      throw half_set(set, unset).advise(advice);
    refuse_left_over_step(environment);
    identity.local_process = index_of(environment, "SLURM_LOCALID");
    identity.local_processes = slurm_local_tasks(environment, index_of(environment, "SLURM_NODEID"));
  }
  check(identity, {"SLURM_PROCID", tasks, "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"});
  return identity;
}

void refuse_unread_launchers(const Environment& environment) {
  const std::optional<std::string> nodes = environment.text("PET_NNODES");
  if (wants_several_here(environment) || (nodes && *nodes != "1" && *nodes != "1:1")) {
    throw user_error("{} {} for a launcher that starts the processes, and this is none of them",
                     environment.set_of({"PET_NNODES", "PET_NPROC_PER_NODE"}),
                     verb(environment.set_of({"PET_NNODES", "PET_NPROC_PER_NODE"})))
        .advise("start the command by sluice launch, which reads these names");
  }
  const std::string known = "start the processes by Open MPI's mpirun, srun, torchrun or sluice launch";
  if (const auto size = environment.text("PMI_SIZE"); size && *size != "1") {
    throw user_error("{} of a launcher that is not known here (MPICH, Intel MPI): each process would run alone",
                     environment.set_of({"PMI_RANK", "PMI_SIZE"}))
        .advise(known);
  }
  if (environment.has("PMIX_RANK")) {
    throw user_error(
        "{} is set without OMPI_COMM_WORLD_RANK or SLURM_PROCID: how many processes there are is not known",
        environment.set_of({"PMIX_RANK"}))
        .advise(known);
  }
}

}  // namespace sluice::launch
