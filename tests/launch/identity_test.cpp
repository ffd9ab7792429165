// Who a process is, by what launchers put into its environment: those that are known, half of them, several at once.
#include "launch/identity.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace sluice::launch {
namespace {

using Values = std::map<std::string, std::string>;

Values operator+(Values left, const Values& right) {
  for (const auto& [name, value] : right) left[name] = value;
  return left;
}

Values without(Values values, const std::vector<std::string>& names) {
  for (const std::string& name : names) values.erase(name);
  return values;
}

// All of it in one line.
std::string shown(const Identity& identity) {
  const std::string master =
      identity.master ? fmt::format(" at {} port {}", identity.master->host, identity.master->port) : "";
  return fmt::format("{}/{} local {}/{} {}{}{}", identity.process, identity.processes, identity.local_process,
                     identity.local_processes, identity.launcher, master, identity.by_mpi ? " by MPI" : "");
}

std::string who(const Values& values, const IdentityFlags& flags = {}) {
  try {
    return shown(identify(flags, Environment(values)));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_NE(error.hint(), "") << error.what();
    return describe(error);
  }
}

const Values torchrun{
    {"RANK", "3"},       {"WORLD_SIZE", "4"},      {"LOCAL_RANK", "1"},     {"LOCAL_WORLD_SIZE", "2"},
    {"GROUP_RANK", "1"}, {"MASTER_ADDR", "node1"}, {"MASTER_PORT", "4711"}, {"TORCHELASTIC_RUN_ID", "none"}};
const Values mpirun{{"OMPI_COMM_WORLD_RANK", "2"},       {"OMPI_COMM_WORLD_SIZE", "8"},
                    {"OMPI_COMM_WORLD_LOCAL_RANK", "0"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                    {"OMPI_COMM_WORLD_NODE_RANK", "0"},  {"PMIX_RANK", "2"}};
// What a batch script, or a shell of salloc, has.
const Values batch{
    {"SLURM_JOB_ID", "77"},           {"SLURM_NTASKS", "4"}, {"SLURM_NNODES", "2"},  {"SLURM_TASKS_PER_NODE", "3,1"},
    {"SLURM_JOB_NODELIST", "n[1-2]"}, {"SLURM_PROCID", "0"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "0"}};
// What srun -N2 -n4 gave its third task where it put three on the first host.
const Values srun = batch + Values{{"SLURM_STEP_ID", "0"},        {"SLURM_STEPID", "0"},
                                   {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_STEP_TASKS_PER_NODE", "3,1"},
                                   {"SLURM_PROCID", "2"},         {"SLURM_LOCALID", "2"}};
// The same in a step whose hosts have so many tasks.
Values step_of(const std::string& tasks_per_node) {
  return srun + Values{{"SLURM_TASKS_PER_NODE", tasks_per_node}, {"SLURM_STEP_TASKS_PER_NODE", tasks_per_node}};
}
const Values master{{"MASTER_ADDR", "n1"}};
// Kubeflow's PyTorchJob with two pods: as it is without, and with a number of processes of a pod.
const Values pod{{"RANK", "1"},
                 {"WORLD_SIZE", "2"},
                 {"MASTER_ADDR", "job-master-0"},
                 {"MASTER_PORT", "23456"},
                 {"PET_NNODES", "2"},
                 {"PET_NODE_RANK", "1"},
                 {"PET_NPROC_PER_NODE", "auto"},
                 {"PET_MASTER_ADDR", "job-master-0"},
                 {"PET_MASTER_PORT", "23456"}};
const Values pod_of_eight = pod + Values{{"WORLD_SIZE", "16"}, {"PET_NPROC_PER_NODE", "8"}};

TEST(Identity, EachLauncherIsRead) {
  const std::string slurm_task = "2/4 local 2/3 srun (SLURM_PROCID) at n1 port 29500";
  const std::vector<std::pair<Values, std::string>> cases{
      {{}, "0/1 local 0/1 no launcher"},
      {torchrun, "3/4 local 1/2 torchrun (RANK) at node1 port 4711"},
      {without(torchrun, {"MASTER_PORT"}), "3/4 local 1/2 torchrun (RANK) at node1 port 29500"},
      {torchrun + Values{{"MASTER_ADDR", "fd00::1"}}, "3/4 local 1/2 torchrun (RANK) at fd00::1 port 4711"},
      {torchrun + Values{{"MASTER_ADDR", "[fd00::1]"}}, "3/4 local 1/2 torchrun (RANK) at fd00::1 port 4711"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "1"}}, "0/1 local 0/1 the environment (RANK)"},
      {mpirun, "2/8 local 0/2 mpirun (OMPI_COMM_WORLD_RANK) by MPI"},
      {mpirun + master, "2/8 local 0/2 mpirun (OMPI_COMM_WORLD_RANK) at n1 port 29500 by MPI"},
      {srun + master, slurm_task},
      {without(srun, {"SLURM_STEP_ID"}) + master, slurm_task},
      {without(srun, {"SLURM_STEP_NUM_TASKS"}) + master, slurm_task},
      {srun + Values{{"PMIX_RANK", "2"}}, "2/4 local 2/3 srun (SLURM_PROCID) by MPI"},
      // The last task, on the second host; lists of hosts with equal numbers.
      {srun + master + Values{{"SLURM_PROCID", "3"}, {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "1"}},
       "3/4 local 0/1 srun (SLURM_PROCID) at n1 port 29500"},
      {step_of("1,3(x2),4") + master + Values{{"SLURM_NODEID", "3"}},
       "2/4 local 2/4 srun (SLURM_PROCID) at n1 port 29500"},
      // A step of one task has no other host to find.
      {{{"SLURM_STEP_ID", "3"}, {"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_NTASKS", "8"}},
       "0/1 local 0/1 srun (SLURM_PROCID)"},
      {pod, "1/2 local 0/1 the environment (RANK) at job-master-0 port 23456"},
      // What is set to nothing is not set.
      {{{"RANK", ""}, {"WORLD_SIZE", ""}, {"OMPI_COMM_WORLD_RANK", ""}}, "0/1 local 0/1 no launcher"},
      {{{"MASTER_PORT", "rubbish"}}, "0/1 local 0/1 no launcher"},
      {{{"PET_NNODES", "1"}, {"PET_NPROC_PER_NODE", "1"}}, "0/1 local 0/1 no launcher"}};
  for (const auto& [values, expected] : cases) EXPECT_EQ(who(values), expected);
}

TEST(Identity, AShellOfAnAllocationIsAlone) {
  const std::string alone = "0/1 local 0/1 no launcher";
  EXPECT_EQ(who(batch), alone);
  EXPECT_EQ(who(without(batch, {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"})), alone);
  for (const char* step : {"4294967291", "4294967290", "4294967292", "batch", "interactive", "-5"}) {
    EXPECT_EQ(who(batch + Values{{"SLURM_STEP_ID", step}}), alone) << step;
  }
}

TEST(Identity, TheOrderOfLaunchers) {
  IdentityFlags flags{.process = 5, .processes = 6, .local_process = 1, .local_processes = 3, .master = "here:1234"};
  const Values everything = srun + mpirun + torchrun + Values{{"WORLD_SIZE", "8"}};
  EXPECT_EQ(who(everything, flags), "5/6 local 1/3 the command line at here port 1234");
  EXPECT_EQ(who(everything), "3/8 local 1/2 torchrun (RANK) at node1 port 4711");
  EXPECT_EQ(who(srun + mpirun), "2/8 local 0/2 mpirun (OMPI_COMM_WORLD_RANK) by MPI");
  // What is not asked need not be whole.
  EXPECT_EQ(who(without(srun, {"SLURM_PROCID"}) + mpirun), "2/8 local 0/2 mpirun (OMPI_COMM_WORLD_RANK) by MPI");
  EXPECT_EQ(who({}, {.process = 0, .processes = 1}), "0/1 local 0/1 the command line");
  // The address may come from elsewhere than the rest.
  flags.master.reset();
  EXPECT_EQ(who(torchrun, flags), "5/6 local 1/3 the command line at node1 port 4711");
}

TEST(Identity, SaysWhichWasTakenWhereTheyDisagree) {
  const auto said = [](const Values& values) { return identify({}, Environment(values)).disagreement; };
  EXPECT_EQ(said(srun + mpirun),
            "process 2 of 8, as mpirun (OMPI_COMM_WORLD_RANK) says; srun (SLURM_PROCID) says 2 of 4");
  EXPECT_EQ(said(torchrun + srun), "process 3 of 4, as torchrun (RANK) says; srun (SLURM_PROCID) says 2 of 4");
  EXPECT_EQ(said(torchrun), "");
  // One task that started all of them says nothing else.
  EXPECT_EQ(said(torchrun + srun + Values{{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}}), "");
  EXPECT_EQ(said(srun + master), "");
  const Values same{{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "2"}, {"LOCAL_WORLD_SIZE", "3"}};
  EXPECT_EQ(said(same + srun + master), "");
}

// A container's image may have set a world of one.
TEST(Identity, FewerProcessesThanAnotherLauncherHasStartedAreRefused) {
  const Values one{{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "1"}};
  for (const Values& values : {one + mpirun, one + srun, torchrun + mpirun}) {
    try {
      identify({}, Environment(values));
      ADD_FAILURE() << "several runs side by side";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::user);
      EXPECT_NE(std::string(error.what()).find("there would be several runs side by side"), std::string::npos);
    }
  }
  // On the command line it is said on purpose.
  EXPECT_NE(identify({.process = 0, .processes = 1}, Environment(mpirun)).disagreement, "");
}

struct Refusal {
  Values values;
  std::string text;
  IdentityFlags flags = {};
};

TEST(Identity, WhatIsNotWholeIsRefusedByName) {
  const std::string hosts_of_one =
      "       where each host has one process, set LOCAL_RANK=0 LOCAL_WORLD_SIZE=1; else start the processes by "
      "torchrun "
      "or sluice launch, which set all four";
  const std::string step =
      "       srun sets it; where a container or a script passes on some of Slurm's names, let it pass on all or none";
  const std::string four = "       give all four, or none: then the launcher's names are read";
  const std::vector<Refusal> cases{
      {{{"RANK", "1"}},
       "RANK=1 is set, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE are not\n"
       "       set all of RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, or none: then nothing is read"},
      {without(torchrun, {"LOCAL_WORLD_SIZE"}),
       "RANK=3, WORLD_SIZE=4 and LOCAL_RANK=1 are set, LOCAL_WORLD_SIZE is not\n"
       "       set all of RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, or none: then nothing is read"},
      {srun + master + Values{{"WORLD_SIZE", "4"}},
       "WORLD_SIZE=4 is set, RANK, LOCAL_RANK and LOCAL_WORLD_SIZE are not\n"
       "       set all of RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, or none: then srun's names are read"},
      {mpirun + Values{{"LOCAL_RANK", "0"}},
       "LOCAL_RANK=0 is set, RANK, WORLD_SIZE and LOCAL_WORLD_SIZE are not\n"
       "       set all of RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE, or none: then mpirun's names are read"},
      {without(torchrun, {"LOCAL_RANK", "LOCAL_WORLD_SIZE"}),
       "RANK=3 and WORLD_SIZE=4 are set, LOCAL_RANK and LOCAL_WORLD_SIZE are not\n" + hosts_of_one},
      {pod + Values{{"PET_NODE_RANK", "0"}},
       "RANK=1 and WORLD_SIZE=2 are set, LOCAL_RANK and LOCAL_WORLD_SIZE are not\n" + hosts_of_one},
      {without(mpirun, {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}),
       "OMPI_COMM_WORLD_RANK=2 and OMPI_COMM_WORLD_LOCAL_RANK=0 are set, OMPI_COMM_WORLD_SIZE and "
       "OMPI_COMM_WORLD_LOCAL_SIZE are not\n"
       "       mpirun sets all four; where a container or a script passes some of them on, let it pass all or none"},
      {without(srun, {"SLURM_PROCID"}) + master,
       "SLURM_STEP_ID=0 and SLURM_STEP_NUM_TASKS=4 are set, SLURM_PROCID is not\n" + step},
      {without(srun, {"SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"}) + master,
       "SLURM_STEP_ID=0, SLURM_PROCID=2 and SLURM_STEP_NUM_TASKS=4 are set, SLURM_LOCALID and "
       "SLURM_STEP_TASKS_PER_NODE are not\n" +
           step},
      {{{"SLURM_PROCID", "3"}}, "SLURM_PROCID=3 is set, SLURM_STEP_ID is not\n" + step},
      {{},
       "command line: --process 1 and --processes 2 are set, --local-process and --local-processes are not\n" + four,
       {.process = 1, .processes = 2}},
      {torchrun,
       "command line: --local-process 1 is set, --process, --processes and --local-processes are not\n" + four,
       {.local_process = 1}}};
  for (const Refusal& each : cases) EXPECT_EQ(who(each.values, each.flags), each.text);
}

TEST(Identity, WhatCannotBeIsRefused) {
  const std::string one_launcher =
      "       one launcher sets all of them; start every process of the run by the same one";
  const std::string set_by = "       launchers set it; where a script does, mend it there";
  const std::vector<Refusal> cases{
      {torchrun + Values{{"RANK", "two"}}, "RANK=two: a whole number is expected\n" + set_by},
      {torchrun + Values{{"RANK", "1.5"}}, "RANK=1.5: a whole number is expected\n" + set_by},
      {torchrun + Values{{"RANK", "99999999999"}}, "RANK=99999999999: a whole number is expected\n" + set_by},
      {torchrun + Values{{"RANK", "-1"}}, "RANK=-1: a number from 0 to 1048575 is expected\n" + set_by},
      {torchrun + Values{{"WORLD_SIZE", "0"}}, "WORLD_SIZE=0: a number from 1 to 1048576 is expected\n" + set_by},
      {torchrun + Values{{"RANK", "\x1b[2J"}}, "RANK=\\x1b[2J: a whole number is expected\n" + set_by},
      {torchrun + Values{{"RANK", "4"}},
       "RANK is 4 and WORLD_SIZE is 4: they are numbered from 0 to 3\n" + one_launcher},
      {torchrun + Values{{"LOCAL_RANK", "2"}},
       "LOCAL_RANK is 2 and LOCAL_WORLD_SIZE is 2: they are numbered from 0 to 1\n" + one_launcher},
      {torchrun + Values{{"LOCAL_WORLD_SIZE", "8"}}, "LOCAL_WORLD_SIZE is 8, more than WORLD_SIZE, 4\n" + one_launcher},
      {mpirun + Values{{"OMPI_COMM_WORLD_RANK", "8"}},
       "OMPI_COMM_WORLD_RANK is 8 and OMPI_COMM_WORLD_SIZE is 8: they are numbered from 0 to 7\n" + one_launcher},
      {srun + Values{{"SLURM_PROCID", "4"}},
       "SLURM_PROCID is 4 and SLURM_STEP_NUM_TASKS is 4: they are numbered from 0 to 3\n" + one_launcher},
      {srun + Values{{"SLURM_LOCALID", "3"}},
       "SLURM_LOCALID is 3 and SLURM_STEP_TASKS_PER_NODE is 3: they are numbered from 0 to 2\n" + one_launcher},
      {srun + Values{{"SLURM_NODEID", "2"}},
       "SLURM_NODEID=2, and SLURM_STEP_TASKS_PER_NODE=3,1 is of 2 nodes\n"
       "       srun sets both; where a script does, leave them to srun"},
      // What sbatch -N2 -n4 gave a script where it was called in a step of two tasks.
      {batch + Values{{"SLURM_STEP_ID", "0"},
                      {"SLURM_STEP_NUM_TASKS", "2"},
                      {"SLURM_STEP_TASKS_PER_NODE", "2"},
                      {"SLURM_TASKS_PER_NODE", "2(x2)"}},
       "SLURM_TASKS_PER_NODE=2(x2) and SLURM_STEP_TASKS_PER_NODE=2 are not of one step: the job was submitted from "
       "within a step, whose names are left over\n"
       "       in the batch script: unset SLURM_STEP_ID SLURM_STEPID; srun sets them for its tasks (without its option "
       "-E, which would pass on the job's numbers)"},
      {{},
       "command line: --processes 0: a number from 1 is expected\n       start it anew with one that is",
       {.process = 0, .processes = 0}}};
  for (const Refusal& each : cases) EXPECT_EQ(who(each.values, each.flags), each.text);
  for (const char* list : {"3,", "x2", "2(x", "2(x0)", "2(x2", "2(y2)", "0", "2 1", "2(x99999999)"}) {
    EXPECT_EQ(who(step_of(list)), fmt::format("SLURM_STEP_TASKS_PER_NODE={}: a list such as 2(x2),1 is expected\n"
                                              "       srun sets it; where a script does, leave it to srun",
                                              list));
  }
}

TEST(Identity, SeveralProcessesMustFindTheFirst) {
  const std::string port_advice = "\n       a port is a number from 1 to 65535";
  const std::vector<Refusal> cases{
      {without(torchrun, {"MASTER_ADDR", "MASTER_PORT"}),
       "4 processes, as torchrun (RANK) says, and no MASTER_ADDR: nothing says where process 0 is\n"
       "       set MASTER_ADDR to the host of process 0, for all processes"},
      {srun,
       "4 processes, as srun (SLURM_PROCID) says, and no MASTER_ADDR: nothing says where process 0 is\n"
       "       in the batch script, before srun: export MASTER_ADDR=$(scontrol show hostnames "
       "\"$SLURM_JOB_NODELIST\" | head -n 1)"},
      {without(torchrun, {"MASTER_ADDR"}),
       "MASTER_PORT=4711 is set, MASTER_ADDR is not\n"
       "       set MASTER_ADDR to the host of process 0, or unset MASTER_PORT"},
      {torchrun + Values{{"MASTER_PORT", "x"}}, "MASTER_PORT=x: \"x\" is no port" + port_advice},
      {torchrun + Values{{"MASTER_PORT", "65536"}}, "MASTER_PORT=65536: \"65536\" is no port" + port_advice},
      {torchrun + Values{{"MASTER_PORT", "0"}}, "MASTER_PORT=0: \"0\" is no port" + port_advice},
      {torchrun + Values{{"MASTER_ADDR", "node1:77"}},
       "MASTER_ADDR=node1:77: a host alone is expected\n"
       "       the port has a name of its own: MASTER_ADDR=node1 MASTER_PORT=77"},
      {torchrun + Values{{"MASTER_ADDR", "tcp://node1"}},
       "MASTER_ADDR tcp://node1: \"//node1\" is no port" + port_advice}};
  for (const Refusal& each : cases) EXPECT_EQ(who(each.values), each.text);
  const std::string advice = "\n       write host:port, as in node1:29500 or [fd00::1]:29500";
  const auto with_master = [&](const std::string& text) {
    return who({}, {.process = 0, .processes = 2, .local_process = 0, .local_processes = 1, .master = text});
  };
  EXPECT_EQ(with_master("[fd00::1]:77"), "0/2 local 0/1 the command line at fd00::1 port 77");
  EXPECT_EQ(with_master("fd00::1"), "0/2 local 0/1 the command line at fd00::1 port 29500");
  EXPECT_EQ(with_master("[fd00::1"), "--master [fd00::1: \"[\" without \"]\"" + advice);
  EXPECT_EQ(with_master("[fd00::1]77"), "--master [fd00::1]77: \"77\" behind \"]\"" + advice);
  EXPECT_EQ(with_master(":77"), "--master :77: \"\" is no host" + advice);
  EXPECT_EQ(with_master("a:"), "--master a:: \"\" is no port" + port_advice);
}

// Each of several processes would run the whole job.
TEST(Identity, ProcessesOfUnreadLaunchersAreNotAlone) {
  const std::string launch_advice = "\n       start the command by sluice launch, which reads these names";
  const std::string known = "\n       start the processes by Open MPI's mpirun, srun, torchrun or sluice launch";
  const std::vector<Refusal> cases{
      {pod_of_eight,
       "RANK=1, WORLD_SIZE=16, PET_NNODES=2 and PET_NPROC_PER_NODE=8 are a pod's, in which a launcher is to start 8 "
       "processes" +
           launch_advice},
      {without(pod_of_eight, {"RANK", "WORLD_SIZE"}),
       "PET_NNODES=2 and PET_NPROC_PER_NODE=8 are for a launcher that starts the processes, and this is none of them" +
           launch_advice},
      {{{"PET_NNODES", "1:4"}},
       "PET_NNODES=1:4 is for a launcher that starts the processes, and this is none of them" + launch_advice},
      {{{"PMI_RANK", "1"}, {"PMI_SIZE", "4"}},
       "PMI_RANK=1 and PMI_SIZE=4 of a launcher that is not known here (MPICH, Intel MPI): each process would run "
       "alone" +
           known},
      {{{"PMIX_RANK", "1"}},
       "PMIX_RANK=1 is set without OMPI_COMM_WORLD_RANK or SLURM_PROCID: how many processes there are is not known" +
           known}};
  for (const Refusal& each : cases) EXPECT_EQ(who(each.values), each.text);
  // As it is within what sluice launch starts there.
  EXPECT_EQ(who(pod_of_eight + torchrun), "3/4 local 1/2 torchrun (RANK) at node1 port 4711");
}

TEST(Identity, RanksAreSpreadEqually) {
  const Identity four{.processes = 4, .launcher = "mpirun (OMPI_COMM_WORLD_RANK)"};
  EXPECT_EQ(ranks_of_each(four, 4), 1);
  EXPECT_EQ(ranks_of_each(four, 12), 3);
  const auto refused = [&](int ranks) -> std::string {
    try {
      return std::to_string(ranks_of_each(four, ranks));
    } catch (const Error& error) {
      return describe(error);
    }
  };
  EXPECT_EQ(refused(6),
            "6 ranks cannot be spread equally over the 4 processes of mpirun (OMPI_COMM_WORLD_RANK)\n"
            "       take a multiple of 4 ranks, such as 8, or start as many processes as divide 6: 1, 2, 3 and 6");
  EXPECT_EQ(refused(1),
            "1 rank cannot be spread equally over the 4 processes of mpirun (OMPI_COMM_WORLD_RANK)\n"
            "       take a multiple of 4 ranks, such as 4, or start as many processes as divide 1: 1");
}

}  // namespace
}  // namespace sluice::launch
