#include "cli/doctor.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>
#include <vector>

#include "base/text.h"
#include "cli/command.h"
#include "cli/terminal.h"
#include "cli/version.h"
#include "device/cuda/cuda.h"
#include "train/machine_info.h"

namespace sluice::cli {
namespace {

constexpr uint64_t least_memory = uint64_t{1} << 30;  // laptop rows need a part of it
constexpr double least_peak_per_thread = 20;          // GFLOP/s; any core with AVX2 has more than twice that

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// Of "always [madvise] never" the word in brackets.
std::string chosen(const std::string& line) {
  const size_t open = line.find('[');
  return open == std::string::npos ? "" : line.substr(open + 1, line.find(']') - open - 1);
}

struct Findings {
  MachineInfo machine;
  unsigned cores_there = 1;
  double quota = 0;
  double load = 0;
  uint64_t available = 0;
  std::string huge_pages;
  cuda::Gpus gpus;
  bool driver_there = false;  // of NVIDIA's
};

Findings look() {
  Findings f;
  f.load = busy_cores();  // before the measurement adds to it
  f.cores_there = std::max(1U, std::thread::hardware_concurrency());
  f.quota = cpu_quota();
  f.available = available_memory();
  f.huge_pages = chosen(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
  f.machine = measure_machine(usable_cores());
  f.gpus = cuda::find_gpus();
  f.driver_there = std::filesystem::exists("/dev/nvidiactl");
  return f;
}

std::string item(const std::string& name, const std::string& text) {
  return fmt::format("  {:<11} {}\n", name, text);
}

// A line for each GPU, or why there is none.
std::string shown_gpus(const cuda::Gpus& gpus) {
  if (gpus.list.empty()) return item("gpu", "none: " + gpus.why_none);
  std::string text;
  for (const cuda::Gpu& gpu : gpus.list) {
    text += item("gpu", fmt::format("{}, {}, {} multiprocessors, sm_{}", gpu.name, format_bytes(gpu.memory_bytes),
                                    gpu.num_sms, gpu.capability));
  }
  return text;
}

std::string shown(const Findings& f) {
  const MachineInfo& m = f.machine;
  std::string text = fmt::format("sluice {} ({})\n\nthis machine\n", version(), commit());
  text += item("processor", fmt::format("{}, {}", m.cpu, m.isa));
  text += item("cores", fmt::format("{} usable of {}{}", m.cores, f.cores_there,
                                    f.quota > 0 ? fmt::format(", {:.1f} granted by the control group", f.quota) : ""));
  text += item("memory", fmt::format("{}, {} available", format_bytes(m.memory_bytes), format_bytes(f.available)));
  text += item("huge pages", f.huge_pages.empty() ? "unknown" : f.huge_pages);
  text += item("load", fmt::format("{:.1f} cores busy with other processes", f.load));
  text += item("system", m.os);
  text += shown_gpus(f.gpus);
  text += "\nmeasured\n";
  text += item("peak", fmt::format("{:.0f} GFLOP/s fp32 multiply-adds, {:.0f} a thread", m.peak_gflops,
                                   m.peak_gflops / m.cores));
  text += item("bandwidth", fmt::format("{:.1f} GB/s, read plus written", m.bandwidth_gbs));
  text += "\nsluice will use\n";
  text += item("device", f.gpus.list.empty() ? "cpu: ranks are threads of one process"
                                             : "cpu; with --device cuda a GPU for each rank, or the first for all");
  text += item("threads", fmt::format("{} (--threads)", m.cores));
  text += item("kernels", fmt::format("{} vector code and matrix products of its own, built by {}", m.isa, m.compiler));
  if (!f.gpus.versions.empty()) text += item("libraries", f.gpus.versions);
  return text;
}

// What makes figures worse, each with its fix.
std::vector<std::string> problems(const Findings& f) {
  std::vector<std::string> found;
  if (f.load > 0.25 * f.machine.cores) {
    found.push_back(
        fmt::format("Other processes keep about {:.1f} of {} cores busy: timings will be low; stop them "
                    "(top shows which) or wait.",
                    f.load, f.machine.cores));
  }
  if (f.quota > 0 && f.quota < f.machine.cores) {
    found.push_back(
        fmt::format("The control group grants {:.1f} cores, less than the {} threads: raise its cpu.max or "
                    "give --threads {}.",
                    f.quota, f.machine.cores, std::max(1, static_cast<int>(f.quota))));
  }
  if (f.huge_pages == "never") {
    found.emplace_back(
        "Huge pages are off: large models lose time to page tables; as root: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled");
  }
  if (f.machine.isa != "AVX-512" && f.machine.isa != "AVX2") {
    found.push_back(
        fmt::format("The processor offers no AVX2 ({} is used): expect a fraction of the usual speed; "
                    "inside a virtual machine pass the host's processor through.",
                    f.machine.isa));
  }
  if (f.driver_there && f.gpus.list.empty()) {
    found.push_back(
        fmt::format("There is a driver for a GPU, but {}: install the CUDA toolkit (nvcc on the PATH), a "
                    "driver that is not older, and build again.",
                    f.gpus.why_none));
  }
  if (!f.gpus.list.empty()) {
    for (const char* library : {"no cuDNN", "no CUTLASS"}) {
      if (f.gpus.versions.find(library) == std::string::npos) continue;
      found.push_back(
          fmt::format("Built with {}: the GPU takes slower kernels of sluice's own; run "
                      "tools/fetch_cuda_headers.sh and build again.",
                      library));
    }
  }
  return found;
}

// What keeps sluice from running at all.
std::string obstacle(const Findings& f) {
  if (f.available < least_memory) {
    return fmt::format("{} of memory are available and the smallest rows need up to {}", format_bytes(f.available),
                       format_bytes(least_memory));
  }
  const double per_thread = f.machine.peak_gflops / f.machine.cores;
  if (!(per_thread >= least_peak_per_thread)) {
    return fmt::format("a thread reaches {:.1f} GFLOP/s, at least {:.0f} are expected of an idle core", per_thread,
                       least_peak_per_thread);
  }
  return {};
}

}  // namespace

int run_doctor() {
  const Findings findings = look();
  std::string text = shown(findings);
  const std::vector<std::string> list = problems(findings);
  if (!list.empty()) text += "\nin the way\n";
  for (const std::string& problem : list) text += "  " + wrap(problem, 98, 2) + "\n";
  const std::string reason = obstacle(findings);
  text += reason.empty() ? "\nready\n" : "\nnot ready: " + reason + "\n";
  print(text);
  return reason.empty() ? 0 : 1;
}

Command doctor_command() {
  return {.name = "doctor",
          .summary = "what this machine has, what sluice will use, what is in the way",
          .details = "",
          .options = {},
          .run = run_doctor};
}

}  // namespace sluice::cli
