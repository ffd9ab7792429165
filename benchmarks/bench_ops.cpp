// Times every operation against what the machine does at best. Times are medians; with --shared the least processor
// time per thread, which says more on a machine with other users.
//   bench_ops [--device cpu] [--dtype fp32|bf16] [--threads N] [--shared 1]
//     a small model's step
//   bench_ops --device cuda [--seconds S]
//     the published models' shapes, in bf16; without a GPU an empty list
//   bench_ops --device ref
//     the same list, tiny, by plain loops
//   bench_ops --device meta
//     the same list, without running it
// All take [--json FILE] [--only TEXT].
#include "bench_ops.h"

#include <fmt/core.h>

#include <exception>

#include "base/error.h"

namespace sluice {
namespace {

BenchOptions options_of(int argc, char** argv) {
  BenchOptions options;
  for (int i = 1; i < argc; i += 2) {
    const std::string flag = argv[i];
    if (i + 1 == argc) throw user_error("{} needs a value", flag);
    const std::string value = argv[i + 1];
    if (flag == "--device") {
      options.device = value;
    } else if (flag == "--threads") {
      options.threads = std::stoi(value);
    } else if (flag == "--dtype") {
      if (value != "fp32" && value != "bf16") throw user_error("--dtype {} is neither fp32 nor bf16", value);
      options.dtype = value;
    } else if (flag == "--json") {
      options.json = value;
    } else if (flag == "--only") {
      options.only = value;
    } else if (flag == "--shared") {
      options.shared = value == "1";
    } else if (flag == "--seconds") {
      options.seconds = std::stod(value);
    } else {
      throw user_error("bench_ops does not know {}", flag);
    }
  }
  return options;
}

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  try {
    const sluice::BenchOptions options = sluice::options_of(argc, argv);
    return options.device == "cpu" ? sluice::bench_cpu(options) : sluice::bench_gpu(options);
  } catch (const sluice::Error& error) {
    fmt::print(stderr, "error: {}\n", sluice::describe(error));
    return 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
