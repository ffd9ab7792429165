#include "launch/launcher.h"

#include <utility>

#include "comm/inproc/inproc.h"
#include "comm/processes/process_world.h"
#include "launch/nccl_network.h"
#include "launch/near_gpu.h"
#include "machine/machine_info.h"

namespace sluice {
namespace {

void check_world(const MeshSpec& mesh, const Courier* courier) {
  if (courier == nullptr) return;
  require(mesh.world == courier->world(), "a mesh of {} ranks among processes of {}", mesh.world, courier->world());
}

void run_rank(const Hardware& hardware, Communicator& world, const std::function<void(Rank&)>& body) {
  const launch::OnProcessors near(hardware.processors ? hardware.processors(world.rank()) : std::vector<int>());
  const auto backend = hardware.backend(world.rank());
  backend->after_reads([&] { world.check_alive(); });
  const auto memory = hardware.memory(world.rank());
  Rank rank{*backend, *memory, world, hardware.gpu_ranks != nullptr};
  body(rank);
}

// Threads that read each other's memory.
class ThreadLauncher final : public Launcher {
 public:
  ThreadLauncher(Hardware hardware, LaunchOptions::Communication comm) : hardware_(std::move(hardware)), comm_(comm) {}
  void run(const MeshSpec& mesh, const std::function<void(Rank&)>& body) override {
    const InprocOptions options{.timeout_s = comm_.timeout_s, .async = comm_.async, .mover = hardware_.mover};
    run_ranks(mesh.world, options, [&](Communicator& world) { run_rank(hardware_, world, body); });
  }

 private:
  Hardware hardware_;
  LaunchOptions::Communication comm_;
};

// Threads with a GPU each, of this process alone or of several.
class GpuLauncher final : public Launcher {
 public:
  GpuLauncher(Hardware hardware, Courier* courier, double timeout_s)
      : hardware_(std::move(hardware)), courier_(courier), timeout_s_(timeout_s) {}
  void run(const MeshSpec& mesh, const std::function<void(Rank&)>& body) override {
    check_world(mesh, courier_);
    hardware_.gpu_ranks(mesh.world, courier_, timeout_s_,
                        [&](Communicator& world) { run_rank(hardware_, world, body); });
  }

 private:
  Hardware hardware_;
  Courier* courier_;
  double timeout_s_;
};

// Threads of several processes.
class ProcessLauncher final : public Launcher {
 public:
  ProcessLauncher(Courier& courier, Hardware hardware, LaunchOptions::Communication comm)
      : courier_(courier), hardware_(std::move(hardware)), comm_(comm) {}
  void run(const MeshSpec& mesh, const std::function<void(Rank&)>& body) override {
    check_world(mesh, &courier_);
    run_ranks(courier_, {.timeout_s = comm_.timeout_s, .async = comm_.async},
              [&](Communicator& world) { run_rank(hardware_, world, body); });
  }

 private:
  Courier& courier_;
  Hardware hardware_;
  LaunchOptions::Communication comm_;
};

}  // namespace

LaunchOptions launch_options(const Config& config) {
  if (config.runtime.device == DeviceKind::meta) {
    throw user_error("runtime.device meta computes nothing")
        .at(config.origin("runtime.device").place())
        .advise("sluice plan runs a configuration on it");
  }
  LaunchOptions options;
  options.device = config.runtime.device;
  options.threads = static_cast<int>(config.runtime.threads.value_or(usable_cores()));
  options.comm = {.timeout_s = config.watchdog_seconds(), .async = config.runtime.async_comm};
  return options;
}

std::unique_ptr<Launcher> make_launcher(const LaunchOptions& options, int world) {
  Courier* const courier = options.courier;
  if (courier != nullptr && options.device == DeviceKind::cuda) launch::choose_nccl_interface(*courier, options.master);
  Hardware hardware = options.hardware;
  if (!hardware.backend) {
    hardware = courier == nullptr ? hardware_of(options.device, options.threads, world)
                                  : hardware_of(options.device, options.threads, *courier, options.local());
  }
  if (hardware.gpu_ranks) return std::make_unique<GpuLauncher>(std::move(hardware), courier, options.comm.timeout_s);
  if (courier == nullptr) return std::make_unique<ThreadLauncher>(std::move(hardware), options.comm);
  require(!hardware.mover, "ranks of several processes that share a GPU");
  return std::make_unique<ProcessLauncher>(*courier, std::move(hardware), options.comm);
}

bool own_gpus(const LaunchOptions& options, int world) {
  return options.courier != nullptr ? options.device == DeviceKind::cuda : own_gpus(options.device, world);
}

}  // namespace sluice
