// What the machine is, and what it can do at best: the text and the denominators beside every figure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/roof.h"
#include "tensor/dtype.h"

namespace sluice {

struct MachineInfo {
  std::string cpu;  // "Intel(R) Xeon(R) Processor"
  int cores = 1;    // that this process may use
  std::string isa;  // "AVX-512": what the kernels chose
  uint64_t memory_bytes = 0;
  std::string os;
  std::string compiler;
  // "NVIDIA H200", and "CUDA 13.0, driver 13.0, ...": where the figures below are a GPU's; else empty.
  std::string gpu;
  std::string libraries;
  DType peak_dtype = DType::f32;
  double peak_gflops = 0;    // measured: multiply-adds of all threads; on a GPU a large product
  double bandwidth_gbs = 0;  // measured: read plus written, by all threads or on the GPU
  // Every measurement of the peak, in order; peak_gflops is the best of them.
  std::vector<double> peaks_gflops;
  // The same of products of bf16 where peak_dtype is f32 and the processor has an instruction for them, else 0 and
  // none.
  double bf16_peak_gflops = 0;
  std::vector<double> bf16_peaks_gflops;

  // Keeps the better figures of two measurements: other processes only ever make them worse. Whether one was better.
  bool take_best(const MachineInfo& other);
  // What a `share` of the machine does at best.
  Roof roof(double share) const;
};

// As the field writes it: "fp32", "bf16", "fp64".
std::string precision_name(DType dtype);

// What is to be said of peaks that varied by more than a few percent: other processes were busy, figures are low.
// Empty where none did.
std::string peak_note(const MachineInfo& machine);

// Cores in this process's affinity mask, no more than its share of processor time allows.
int usable_cores();
// Cores' worth of time the process's control group grants; 0: no limit.
double cpu_quota();
// Bytes that can be taken without swapping, within the control group's limit.
uint64_t available_memory();

// Cores that this process finds busy, watched for a fifth of a second. 0 where the system does not say.
double busy_cores();

// Measures on `threads` threads; well under a second.
MachineInfo measure_machine(int threads);
// The user error of a run that wants a GPU where there is none, and why there is none.
Error no_gpu(const std::string& reason);
// The machine with the first GPU, which computes in `dtype`; a second or two. User error where there is no GPU.
MachineInfo measure_gpu(DType dtype);

// "2 x Intel(R) Xeon(R) Processor, AVX-512, 23.5 GiB", "NVIDIA H200, 140 GiB"
std::string describe(const MachineInfo& machine);
// "430 GFLOP/s fp32 peak, 860 GFLOP/s bf16 peak, 20.6 GB/s"
std::string describe_ceilings(const MachineInfo& machine);

}  // namespace sluice
