#include "launch/launcher.h"

#include <utility>

#include "comm/inproc/inproc.h"
#include "comm/nccl/nccl.h"
#include "comm/processes/process_world.h"
#include "machine/machine_info.h"

namespace sluice {
namespace {

void run_rank(const Hardware& hardware, Communicator& world, const std::function<void(Rank&)>& body) {
  const auto backend = hardware.backend(world.rank());
  backend->after_reads([&] { world.check_alive(); });
  const auto memory = hardware.memory(world.rank());
  Rank rank{*backend, *memory, world};
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

// Threads with a GPU each.
class GpuLauncher final : public Launcher {
 public:
  GpuLauncher(Hardware hardware, double timeout_s) : hardware_(std::move(hardware)), timeout_s_(timeout_s) {}
  void run(const MeshSpec& mesh, const std::function<void(Rank&)>& body) override {
    nccl::run_ranks(mesh.world, {.timeout_s = timeout_s_},
                    [&](Communicator& world) { run_rank(hardware_, world, body); });
  }

 private:
  Hardware hardware_;
  double timeout_s_;
};

// Threads of several processes.
class ProcessLauncher final : public Launcher {
 public:
  ProcessLauncher(Courier& courier, Hardware hardware, LaunchOptions::Communication comm)
      : courier_(courier), hardware_(std::move(hardware)), comm_(comm) {}
  void run(const MeshSpec& mesh, const std::function<void(Rank&)>& body) override {
    require(mesh.world == courier_.world(), "a mesh of {} ranks among processes of {}", mesh.world, courier_.world());
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
  Hardware hardware = options.hardware.backend ? options.hardware : hardware_of(options.device, options.threads, world);
  if (options.courier != nullptr) {
    if (hardware.mover || hardware.nccl || options.device == DeviceKind::cuda) {
      throw user_error("runtime.device cuda in several processes is not available")
          .advise("one process has a rank for each of its GPUs; several train with runtime.device cpu");
    }
    return std::make_unique<ProcessLauncher>(*options.courier, std::move(hardware), options.comm);
  }
  if (hardware.nccl) return std::make_unique<GpuLauncher>(std::move(hardware), options.comm.timeout_s);
  return std::make_unique<ThreadLauncher>(std::move(hardware), options.comm);
}

}  // namespace sluice
