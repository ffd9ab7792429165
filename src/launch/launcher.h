// Launcher: runs the ranks of a job, however they are spread: threads of this process on the host or on GPUs, or this
// process's share of them.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/mesh.h"
#include "comm/processes/courier.h"
#include "config/load.h"
#include "launch/hardware.h"

namespace sluice {

// What a rank has.
struct Rank {
  Backend& backend;
  Memory& memory;
  Communicator& world;
  // Whether it has a GPU of its own, which collectives keep busy until all ranks have come.
  bool own_gpu = false;
};

class Launcher {
 public:
  Launcher() = default;
  Launcher(const Launcher&) = delete;
  Launcher& operator=(const Launcher&) = delete;
  virtual ~Launcher() = default;

  // body(rank) on a thread for each rank of the mesh's world that this process has. When all have ended, the first
  // failure of any rank is thrown, here or elsewhere.
  virtual void run(const MeshSpec& mesh, const std::function<void(Rank&)>& body) = 0;
};

struct LaunchOptions {
  DeviceKind device = DeviceKind::cpu;
  int threads = 1;  // of the pool that all ranks of this process share
  struct Communication {
    double timeout_s = 600;
    bool async = false;  // collectives go on while their callers do
  };
  Communication comm = {};
  Hardware hardware = {};      // instead of what `device` names
  Courier* courier = nullptr;  // to the job's other processes; null: there are none
  int sharing = 1;             // processes that use the same cores, each with so many threads
  // Where it stands among the processes of its host, and the host of the first one as it was given, empty where it was
  // not: for ranks that own a GPU each.
  int local_process = 0;
  int local_processes = 1;
  std::string master = {};

  // The lowest rank of this process.
  int first_rank() const { return courier == nullptr ? 0 : courier->self().first_rank; }
  // What `courier`'s process has of its host.
  launch::LocalRanks local() const { return {local_process, local_processes, courier->self().ranks}; }
};

// How the configuration asks for it to be run here. User error for a device that computes nothing.
LaunchOptions launch_options(const Config& config);

// For a world of so many ranks. User error where there is no GPU and one is asked for. Of several processes each calls
// it.
std::unique_ptr<Launcher> make_launcher(const LaunchOptions& options, int world);

// Whether each of so many ranks has a GPU of its own.
bool own_gpus(const LaunchOptions& options, int world);

}  // namespace sluice
