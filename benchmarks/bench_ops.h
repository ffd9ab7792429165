// What bench_ops is asked for, and its two halves.
#pragma once

#include <string>

namespace sluice {

struct BenchOptions {
  std::string device = "cpu";
  std::string json;            // file to write, or empty
  std::string only;            // operations whose name or description contains it
  int threads = 2;             // cpu
  std::string dtype = "fp32";  // cpu: "fp32" or "bf16"
  bool shared = false;         // cpu: the least processor time per thread instead of the median of elapsed times
  double seconds = 0.1;        // gpu: measured for each operation at least
};

// Every operation of a small model's step on the CPU. Returns the program's exit status, like the other.
int bench_cpu(const BenchOptions& options);
// Every operation at the published models' shapes in bf16: device "cuda"; "ref", small and on the plain loops, to try
// the program itself; or "meta", which only lists.
int bench_gpu(const BenchOptions& options);

}  // namespace sluice
