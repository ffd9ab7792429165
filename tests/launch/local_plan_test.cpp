// Which processes are started on a host: by options, by torchrun's names for launchers, by neither; and their listener.
#include "launch/local_plan.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/error.h"
#include "comm/sockets/sockets.h"
#include "launch/listener.h"

namespace sluice::launch {
namespace {

using Values = std::map<std::string, std::string>;

std::string planned(const LaunchFlags& flags, const Values& values = {}) {
  try {
    const LocalPlan plan = local_plan(flags, Environment(values));
    const std::string master = plan.master ? fmt::format(" at {} port {}", plan.master->host, plan.master->port) : "";
    return fmt::format("{} on host {}/{}{}{}", plan.processes, plan.node, plan.nodes, master,
                       plan.restarts > 0 ? fmt::format(" again {}", plan.restarts) : "");
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    EXPECT_NE(error.hint(), "") << error.what();
    return describe(error);
  }
}

// What Kubeflow gives a pod that starts its processes by a launcher.
const Values pod{{"RANK", "1"},
                 {"WORLD_SIZE", "16"},
                 {"MASTER_ADDR", "other"},
                 {"PET_NNODES", "2"},
                 {"PET_NPROC_PER_NODE", "8"},
                 {"PET_NODE_RANK", "1"},
                 {"PET_MASTER_ADDR", "job-master-0"},
                 {"PET_MASTER_PORT", "23456"}};

TEST(LocalPlan, OptionsComeBeforeNames) {
  EXPECT_EQ(planned({.processes = 4}), "4 on host 0/1");
  EXPECT_EQ(planned({.processes = 4, .restarts = 2}), "4 on host 0/1 again 2");
  EXPECT_EQ(planned({.processes = 4, .nodes = 2, .node = 1, .master = "n0:77"}), "4 on host 1/2 at n0 port 77");
  EXPECT_EQ(planned({}, pod), "8 on host 1/2 at job-master-0 port 23456");
  EXPECT_EQ(planned({.processes = 3, .nodes = 4, .node = 2, .master = "n0"}, pod), "3 on host 2/4 at n0 port 29500");
  // On one host the launcher finds a port, whatever is set, unless it is told one.
  EXPECT_EQ(planned({.nodes = 1, .node = 0}, pod), "8 on host 0/1");
  EXPECT_EQ(planned({.processes = 2, .master = "127.0.0.1:77"}), "2 on host 0/1 at 127.0.0.1 port 77");
  EXPECT_EQ(planned({.processes = 2, .nodes = 2, .node = 0}, {{"MASTER_ADDR", "n0"}, {"MASTER_PORT", "78"}}),
            "2 on host 0/2 at n0 port 78");
}

TEST(LocalPlan, WhatMakesNoPlanIsRefused) {
  const Values srun{{"SLURM_STEP_ID", "0"}, {"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"},
                    {"SLURM_LOCALID", "0"}, {"SLURM_NODEID", "1"}, {"SLURM_STEP_TASKS_PER_NODE", "1(x2)"}};
  Values two_here = srun;
  two_here["SLURM_STEP_TASKS_PER_NODE"] = "2";
  two_here["SLURM_NODEID"] = "0";
  two_here["SLURM_LOCALID"] = "1";
  struct Refusal {
    LaunchFlags flags;
    Values values;
    std::string text;
  };
  const std::vector<Refusal> cases{
      {{}, {}, "command line: how many processes?\n       --nproc N says how many this host has"},
      {{.processes = 0}, {}, "command line: --nproc 0: a number from 1 to 1048576 is expected\n       mend the option"},
      {{},
       {{"PET_NPROC_PER_NODE", "gpu"}},
       "PET_NPROC_PER_NODE=gpu: this launcher needs a number\n       give it as --nproc N"},
      {{.processes = 1},
       {{"PET_NNODES", "1:4"}},
       "PET_NNODES=1:4: this launcher needs a number\n       give it as --nnodes N"},
      {{.processes = 2, .nodes = 2},
       {},
       "command line: 2 hosts, and which of them this is was not said\n"
       "       --node-rank N, from 0 to 1, another one on each host"},
      {{.processes = 2, .node = 1},
       {},
       "command line: host 1 of 1: they are numbered from 0 to 0\n       --nnodes N says how many there are"},
      {{.processes = 2, .nodes = 2, .node = 1},
       {},
       "command line: 2 hosts and no address of the first: the processes would not find each other\n"
       "       --master HOST:PORT, the same on every host: the host of --node-rank 0, and a port that is free there"},
      {{.processes = 1024, .nodes = 1025, .node = 0},
       {},
       "command line: 1024 processes on each of 1025 hosts: 1048576 are the most\n"
       "       a process may have several ranks, threads of it"},
      {{.processes = 2, .restarts = -1},
       {},
       "command line: --restarts -1: 0 or more is expected\n       leave it out to start the processes once"},
      {{.processes = 2, .master = "n0:x"},
       {},
       "--master n0:x: \"x\" is no port\n       a port is a number from 1 to 65535"},
      // One launcher too many, or several that know nothing of each other.
      {{.processes = 2},
       two_here,
       "this launcher is process 1 of 2 on this host, as srun (SLURM_PROCID) says\n"
       "       one on each host is enough; or start the processes of the run without it"},
      {{.processes = 2},
       srun,
       "there are launchers on 2 hosts, as srun (SLURM_PROCID) says, and this one starts processes for 1\n"
       "       give each launcher its own --node-rank, and all the same --nnodes and --master"}};
  for (const Refusal& each : cases) EXPECT_EQ(planned(each.flags, each.values), each.text);
  EXPECT_EQ(planned({.processes = 2, .nodes = 2, .node = 1, .master = "n0"}, srun), "2 on host 1/2 at n0 port 29500");
}

TEST(LocalPlan, EachProcessHasItsNames) {
  const LocalPlan plan{.processes = 4, .nodes = 3, .node = 2};
  const std::vector<std::pair<std::string, std::string>> expected{{"RANK", "9"},         {"WORLD_SIZE", "12"},
                                                                  {"LOCAL_RANK", "1"},   {"LOCAL_WORLD_SIZE", "4"},
                                                                  {"MASTER_ADDR", "n0"}, {"MASTER_PORT", "77"}};
  EXPECT_EQ(names_for(plan, 1, {.host = "n0", .port = 77}), expected);
}

bool connects(int port) {
  const Descriptor socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return ::connect(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
}

TEST(Listener, IsInheritedByItsNumberAndPort) {
  const sluice::Listener listener(0, "127.0.0.1");
  const int port = listener.port();
  EXPECT_TRUE(connects(port));
  const int copy = ::dup(listener.number());
  const Environment named(Values{{kListenerName, std::to_string(copy)}});
  EXPECT_FALSE(inherited_listener(Environment(Values{}), port));
  EXPECT_FALSE(inherited_listener(named, port + 1));
  const auto inherited = inherited_listener(named, port);
  ASSERT_TRUE(inherited);
  EXPECT_EQ(inherited->number(), copy);
  EXPECT_EQ(::fcntl(copy, F_GETFD), FD_CLOEXEC);
  // Numbers of something else, and of nothing.
  const Descriptor file("/dev/null", O_RDONLY, "open");
  for (const int number : {file.number(), 999}) {
    EXPECT_FALSE(inherited_listener(Environment(Values{{kListenerName, std::to_string(number)}}), port));
  }
}

}  // namespace
}  // namespace sluice::launch
