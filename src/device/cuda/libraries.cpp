#include <cublasLt.h>

#include <string>

#include "device/cuda/api.h"
#include "device/cuda/attention_graph.h"
#include "device/cuda/grouped_kernels.h"

namespace sluice::cuda {

namespace {

// "13.0" of 13000
std::string version(int number) {
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

std::string driver() {
  int number = 0;
  const bool there = cudaDriverGetVersion(&number) == cudaSuccess && number > 0;
  return there ? "driver " + version(number) : "no driver";
}

}  // namespace

std::string library_versions() {
  int runtime = 0;
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  const size_t cublas = cublasLtGetVersion();
  return fmt::format("CUDA {}, {}, cuBLAS {}.{}, {}, {}", version(runtime), driver(), cublas / 10000,
                     cublas % 10000 / 100, AttentionGraphs::version(), grouped_version());
}

}  // namespace sluice::cuda
