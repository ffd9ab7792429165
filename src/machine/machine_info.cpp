#include "machine/machine_info.h"

#include <fmt/core.h>
#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>

#include "base/text.h"
#include "device/cpu/bf16_dot.h"
#include "device/cpu/peak.h"
#include "device/cuda/cuda.h"
#include "machine/ceilings.h"

namespace sluice {
namespace {

// Ticks of all cores since the start: all, and those not idle.
struct CpuTimes {
  double total = 0;
  double busy = 0;
};

CpuTimes cpu_times() {
  std::ifstream file("/proc/stat");
  std::string word;
  file >> word;  // "cpu": user nice system idle iowait irq softirq steal
  CpuTimes times;
  double ticks = 0;
  for (int field = 0; field < 8 && file >> ticks; ++field) {
    times.total += ticks;
    if (field != 3 && field != 4) times.busy += ticks;
  }
  return times;
}

// What follows "key<spaces>:" or "key=" in a file of such lines, without quotes; empty when there is none.
std::string value_in(const char* path, const std::string& key, char separator) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t at = line.find(separator);
    if (at == std::string::npos || !line.starts_with(key)) continue;
    if (line.find_first_not_of(" \t", key.size()) != at) continue;
    std::string value = line.substr(at + 1);
    std::erase(value, '"');
    value.erase(0, value.find_first_not_of(" \t"));
    return value;
  }
  return {};
}

uint64_t meminfo(const std::string& key) {
  std::istringstream text(value_in("/proc/meminfo", key, ':'));
  uint64_t kib = 0;
  text >> kib;
  return kib * 1024;
}

// The number in a control group's file; 0 for "max" or no such file.
double cgroup_number(const char* path) {
  std::ifstream file(path);
  double value = 0;
  return file >> value ? value : 0;
}

// Without trade marks and words that every name has.
std::string cpu_name() {
  std::string name = value_in("/proc/cpuinfo", "model name", ':');
  for (const std::string_view part : {"(R)", "(TM)", "(tm)", " Processor", " CPU"}) {
    for (size_t at = 0; (at = name.find(part)) != std::string::npos;) name.erase(at, part.size());
  }
  return name.empty() ? "CPU" : name;
}

std::string os_name() {
  std::string name = value_in("/etc/os-release", "PRETTY_NAME", '=');
  utsname kernel{};
  if (::uname(&kernel) != 0) return name;
  return name + (name.empty() ? "" : ", ") + kernel.sysname + " " + kernel.release;
}

// g++ gives its number alone, clang its name too.
std::string compiler_name() {
  const std::string version = __VERSION__;
  return version.find("lang") == std::string::npos ? "g++ " + version : version;
}

}  // namespace

double cpu_quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  double quota = 0;
  double period = 0;
  return file >> quota >> period && period > 0 ? quota / period : 0;
}

int usable_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int cores = ::sched_getaffinity(0, sizeof(mask), &mask) == 0 ? CPU_COUNT(&mask) : 1;
  if (const double quota = cpu_quota(); quota > 0) cores = std::min(cores, static_cast<int>(std::ceil(quota)));
  return std::max(1, cores);
}

uint64_t available_memory() {
  const uint64_t free = meminfo("MemAvailable");
  const double limit = cgroup_number("/sys/fs/cgroup/memory.max");
  if (limit <= 0) return free;
  const double left = std::max(0.0, limit - cgroup_number("/sys/fs/cgroup/memory.current"));
  return std::min(free, static_cast<uint64_t>(left));
}

double busy_cores() {
  const CpuTimes before = cpu_times();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const CpuTimes after = cpu_times();
  const double passed = after.total - before.total;
  return passed > 0 ? (after.busy - before.busy) / passed * std::thread::hardware_concurrency() : 0;
}

bool MachineInfo::take_best(const MachineInfo& other) {
  bool better = false;
  const auto take = [&](double& best, double measured) {
    better = better || measured > best;
    best = std::max(best, measured);
  };
  take(peak_gflops, other.peak_gflops);
  take(bf16_peak_gflops, other.bf16_peak_gflops);
  take(bandwidth_gbs, other.bandwidth_gbs);
  peaks_gflops.insert(peaks_gflops.end(), other.peaks_gflops.begin(), other.peaks_gflops.end());
  bf16_peaks_gflops.insert(bf16_peaks_gflops.end(), other.bf16_peaks_gflops.begin(), other.bf16_peaks_gflops.end());
  return better;
}

Roof MachineInfo::roof(double share) const {
  return {.flops = share * peak_gflops * 1e9,
          .bf16_flops = share * bf16_peak_gflops * 1e9,
          .bandwidth = share * bandwidth_gbs * 1e9,
          .type = peak_dtype};
}

std::string precision_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "fp32";
    case DType::f64:
      return "fp64";
    default:
      return std::string(name_of(dtype));
  }
}

namespace {

// Of the measurements of one peak.
std::string varied(const std::string& peak, const std::vector<double>& measured) {
  constexpr double much = 0.05;
  if (measured.empty()) return {};
  const auto [least, most] = std::minmax_element(measured.begin(), measured.end());
  const double spread = 1 - *least / *most;
  if (!(spread > much)) return {};
  return fmt::format(
      "The {} varied by {:.0f} % during this run ({:.0f} to {:.0f} GFLOP/s in {} measurements): other processes were "
      "busy, figures are low.",
      peak, 100 * spread, *least, *most, measured.size());
}

std::string gflops_text(double gflops) {
  return gflops < 1e5 ? fmt::format("{:.0f} GFLOP/s", gflops) : fmt::format("{:.0f} TFLOP/s", gflops * 1e-3);
}

}  // namespace

std::string peak_note(const MachineInfo& machine) {
  const bool two = !machine.bf16_peaks_gflops.empty();
  std::string text = varied(two ? "fp32 peak" : "peak", machine.peaks_gflops);
  const std::string bf16 = varied("bf16 peak", machine.bf16_peaks_gflops);
  if (!text.empty() && !bf16.empty()) text += " ";
  return text + bf16;
}

namespace {

MachineInfo look_at_machine() {
  MachineInfo machine;
  machine.cpu = cpu_name();
  machine.cores = usable_cores();
  machine.isa = cpu::instruction_set();
  machine.memory_bytes = meminfo("MemTotal");
  machine.os = os_name();
  machine.compiler = compiler_name();
  return machine;
}

}  // namespace

MachineInfo measure_machine(int threads) {
  MachineInfo machine = look_at_machine();
  Pool pool(threads);
  machine.peak_gflops = cpu::measure_fma_peak(pool);
  machine.peaks_gflops = {machine.peak_gflops};
  if (cpu::has_bf16_dot()) {
    machine.bf16_peak_gflops = cpu::measure_bf16_peak(pool);
    machine.bf16_peaks_gflops = {machine.bf16_peak_gflops};
  }
  machine.bandwidth_gbs = cpu::measure_bandwidth(pool);
  return machine;
}

Error no_gpu(const std::string& reason) {
  return user_error("runtime.device cuda: {}", reason)
      .advise("leave it out to compute on the CPU; sluice doctor says what there is");
}

MachineInfo measure_gpu(DType dtype) {
  // As large as what they are compared with was measured at: 8192 in each dimension, f32 and f64 products are slower.
  constexpr int64_t kSide = 8192, kSlowSide = 4096, kCopied = int64_t{1} << 28;
  const cuda::Gpus gpus = cuda::find_gpus();
  if (gpus.list.empty()) throw no_gpu(gpus.why_none);
  MachineInfo machine = look_at_machine();
  machine.gpu = gpus.list.front().name;
  machine.libraries = gpus.versions;
  machine.memory_bytes = gpus.list.front().memory_bytes;
  machine.peak_dtype = dtype;
  const auto backend = cuda::make_backend({});
  const auto memory = cuda::make_device_memory(0);
  const Ceilings ceilings =
      measure_ceilings(*backend, *memory, dtype, dtype == DType::bf16 ? kSide : kSlowSide, kCopied);
  machine.peak_gflops = ceilings.flops * 1e-9;
  machine.peaks_gflops = {machine.peak_gflops};
  machine.bandwidth_gbs = ceilings.bandwidth * 1e-9;
  return machine;
}

std::string describe_ceilings(const MachineInfo& machine) {
  std::string peaks = fmt::format("{} {} peak", gflops_text(machine.peak_gflops), precision_name(machine.peak_dtype));
  if (machine.bf16_peak_gflops > 0) peaks += fmt::format(", {} bf16 peak", gflops_text(machine.bf16_peak_gflops));
  return fmt::format("{}, {:.1f} GB/s", peaks, machine.bandwidth_gbs);
}

std::string describe(const MachineInfo& machine) {
  if (!machine.gpu.empty()) {
    return fmt::format("{}, {}, {}", machine.gpu, format_bytes(machine.memory_bytes), machine.libraries);
  }
  return fmt::format("{} x {}, {}, {}", machine.cores, machine.cpu, machine.isa, format_bytes(machine.memory_bytes));
}

}  // namespace sluice
