#include "gpu_bench.h"

#include <algorithm>

#include "base/clock.h"

namespace sluice {

double Floor::limit(const Cost& cost, double copy_byte_per_s) const {
  double result = seconds;
  if (flop_per_s > 0) result += cost.flops / flop_per_s;
  if (copy_share > 0 && copy_byte_per_s > 0)
    result += (bytes > 0 ? bytes : cost.bytes()) / (copy_share * copy_byte_per_s);
  return result;
}

Floor product_floor(double tflops) {
  return {.flop_per_s = tflops * 1e12, .text = fmt::format("{} TFLOP/s", tflops)};
}

Floor copy_floor(double share, double bytes) {
  return {.copy_share = share, .bytes = bytes, .text = fmt::format("{:.0f} % of the copy", 100 * share)};
}

GpuBench::GpuBench(Backend& backend, Memory& memory, double seconds, std::string only)
    : backend_(backend),
      context_(backend, DType::bf16),
      operands_(memory, MemoryKind::activations, "operands"),
      scratch_(memory, MemoryKind::scratch, "scratch"),
      seconds_(seconds),
      only_(std::move(only)) {
  context_.bind({.activations = &operands_, .deferred = &operands_, .records = &operands_, .scratch = &scratch_});
  flag_ = scratch_.empty({1}, DType::i32);
}

Tensor GpuBench::random(Shape shape, double std, DType dtype) {
  const Tensor t = empty(shape, dtype);
  context_.run(FillNormal{.x = t.view({t.numel()}), .std = std, .key = ++seed_});
  return t;
}

Tensor GpuBench::ints(Shape shape, int64_t bound) {
  const Philox random(++seed_);
  std::vector<int32_t> values(static_cast<size_t>(shape.numel()));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(bound), i));
  }
  return upload(shape, values);
}

void GpuBench::wait() {
  int32_t value = 0;
  if (real()) backend_.read(flag_, &value);
}

Batches GpuBench::measure(const std::function<void()>& run) {
  if (!real()) {
    run();
    return {};
  }
  constexpr double kBatch = 4e-3;
  constexpr int64_t kMostPerBatch = 1000;
  constexpr size_t kFewest = 5, kMost = 25;
  const auto seconds_of = [&](int64_t times) {
    wait();
    const Stopwatch watch;
    for (int64_t i = 0; i < times; ++i) run();
    wait();
    return watch.seconds() / static_cast<double>(times);
  };
  // The first call loads kernels and makes plans.
  seconds_of(1);
  const double once = seconds_of(2);
  const int64_t per_batch = std::clamp(static_cast<int64_t>(kBatch / std::max(once, 1e-7)), int64_t{1}, kMostPerBatch);
  std::vector<double> times;
  const Stopwatch total;
  while (times.size() < kFewest || (total.seconds() < seconds_ && times.size() < kMost)) {
    times.push_back(seconds_of(per_batch));
  }
  std::sort(times.begin(), times.end());
  return {.median = times[times.size() / 2],
          .least = times.front(),
          .most = times.back(),
          .batches = static_cast<int>(times.size()),
          .per_batch = per_batch};
}

}  // namespace sluice
