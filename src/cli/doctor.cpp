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
#include "comm/mpi/mpi.h"

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

Findings look() {
  Findings f;
  f.load = busy_cores();  // before the measurement adds to it
  f.cores_there = std::max(1U, std::thread::hardware_concurrency());
  f.quota = cpu_quota();
  f.available = available_memory();
  f.huge_pages = chosen(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
  f.machine = measure_machine(usable_cores());
  f.machine.take_best(measure_machine(usable_cores()));
  f.load = std::max(f.load, busy_cores());
  f.gpus = cuda::find_gpus();
  f.driver_there = std::filesystem::exists("/dev/nvidiactl");
  return f;
}

// The items of a report: a name, and a text of one or more lines beside it.
class Items {
 public:
  explicit Items(size_t width) : width_(width) {}
  std::string operator()(const std::string& name, const std::string& text) const {
    constexpr size_t kName = 11;
    return wrap(fmt::format("  {:<{}} {}", name, kName, text), width_, kName + 3) + "\n";
  }

 private:
  size_t width_;
};

// A line for each GPU, or why there is none.
std::string shown_gpus(const cuda::Gpus& gpus, const Items& item) {
  if (gpus.list.empty()) return item("gpu", "none: " + gpus.why_none);
  std::string text;
  for (const cuda::Gpu& gpu : gpus.list) {
    text += item("gpu", fmt::format("{}, {}, {} multiprocessors, sm_{}", gpu.name, format_bytes(gpu.memory_bytes),
                                    gpu.num_sms, gpu.capability));
  }
  return text;
}

std::string shown(const Findings& f, const Items& item) {
  const MachineInfo& m = f.machine;
  std::string text = fmt::format("sluice {} ({})\n\nthis machine\n", version(), commit());
  text += item("processor", fmt::format("{}, {}", m.cpu, m.isa));
  text += item("cores", fmt::format("{} usable of {}{}", m.cores, f.cores_there,
                                    f.quota > 0 ? fmt::format(", {:.1f} granted by the control group", f.quota) : ""));
  text += item("memory", fmt::format("{}, {} available", format_bytes(m.memory_bytes), format_bytes(f.available)));
  text += item("huge pages", f.huge_pages.empty() ? "unknown" : f.huge_pages);
  text += item("load", fmt::format("{:.1f} cores busy with other processes", f.load));
  text += item("system", m.os);
  text += shown_gpus(f.gpus, item);
  text += "\nmeasured\n";
  text += item("peak", fmt::format("{:.0f} GFLOP/s fp32 multiply-adds, {:.0f} a thread", m.peak_gflops,
                                   m.peak_gflops / m.cores));
  text += item("bf16 peak", m.bf16_peak_gflops > 0
                                ? fmt::format("{:.0f} GFLOP/s bf16 products, {:.0f} a thread", m.bf16_peak_gflops,
                                              m.bf16_peak_gflops / m.cores)
                                : "none: the processor has no instruction for it (AVX-512 BF16); bf16 runs compute "
                                  "with fp32 multiply-adds");
  text += item("bandwidth", fmt::format("{:.1f} GB/s, read plus written", m.bandwidth_gbs));
  text += "\nsluice will use\n";
  text += item("device", f.gpus.list.empty() ? "cpu: ranks are threads of one process"
                                             : "cpu; with --device cuda a GPU for each rank, or the first for all");
  text += item("threads", fmt::format("{} (--threads)", m.cores));
  text += item("kernels", fmt::format("{} vector code and matrix products of its own, built by {}", m.isa, m.compiler));
  text += item("processes", mpi::available() ? "connected by sockets, or by " + mpi::version() + " under mpirun"
                                             : "connected by sockets; built without MPI");
  if (!f.gpus.versions.empty()) text += item("libraries", f.gpus.versions);
  return text;
}

// What shows that other processes take time from this one; empty where nothing does.
std::string busyness(const Findings& f) {
  constexpr double much_load = 0.25, much_spread = 0.2;
  if (f.load > much_load * f.machine.cores) {
    return fmt::format("other processes keep about {:.1f} of {} cores busy", f.load, f.machine.cores);
  }
  const std::vector<double>& peaks = f.machine.peaks_gflops;
  if (peaks.empty()) return {};
  const auto [least, most] = std::minmax_element(peaks.begin(), peaks.end());
  if (*least >= (1 - much_spread) * *most) return {};
  return fmt::format("the peak was {:.0f} GFLOP/s once and {:.0f} a moment later, other processes are at work", *least,
                     *most);
}

// What makes figures worse, each with its fix.
std::vector<std::string> problems(const Findings& f) {
  std::vector<std::string> found;
  if (const std::string busy = busyness(f); !busy.empty()) {
    found.push_back(fmt::format("Busy: {}: timings will be low; stop them (top shows which) or wait.", busy));
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
  // What a busy machine shows says nothing of its processor.
  if (!(per_thread >= least_peak_per_thread) && busyness(f).empty()) {
    return fmt::format("a thread reaches {:.1f} GFLOP/s, at least {:.0f} are expected of an idle core", per_thread,
                       least_peak_per_thread);
  }
  return {};
}

}  // namespace

std::string verdict(const Findings& findings) {
  if (const std::string reason = obstacle(findings); !reason.empty()) return "not ready: " + reason;
  const std::string busy = busyness(findings);
  return busy.empty() ? "ready" : "ready, but busy: " + busy;
}

std::string doctor_report(const Findings& findings, size_t width) {
  std::string text = shown(findings, Items(width));
  const std::vector<std::string> list = problems(findings);
  if (!list.empty()) text += "\nin the way\n";
  for (const std::string& problem : list) text += wrap("  " + problem, width, 2) + "\n";
  return text + "\n" + wrap(verdict(findings), width, 2) + "\n";
}

int run_doctor() {
  const Findings findings = look();
  print(doctor_report(findings, page_width()));
  return obstacle(findings).empty() ? 0 : 1;
}

Command doctor_command() {
  return {.name = "doctor",
          .summary = "what this machine has, what sluice will use, what is in the way",
          .details = "",
          .options = {},
          .run = run_doctor};
}

}  // namespace sluice::cli
