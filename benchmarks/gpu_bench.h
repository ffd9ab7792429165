// GpuBench: operands in a device's memory, and the time operations on them take there. Operations are started one after
// another and waited for in batches, so that starting and waiting cost next to nothing unless an operation is short.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "base/philox.h"
#include "device/context.h"

namespace sluice {

// What an operation may take at most: its arithmetic at a rate, then its bytes at a share of the copy bandwidth
// measured in the same run; or so many seconds. Nothing set: it is timed only.
struct Floor {
  double flop_per_s = 0;
  double copy_share = 0;
  double bytes = 0;  // that must move, if not every tensor once
  double seconds = 0;
  std::string text;

  double limit(const Cost& cost, double copy_byte_per_s) const;
};
Floor product_floor(double tflops);
Floor copy_floor(double share, double bytes = 0);

struct Batches {
  double median = 0, least = 0, most = 0;  // seconds of one operation
  int batches = 0;
  int64_t per_batch = 0;
};

struct TimedOp {
  std::string name, what, tensors;
  Cost cost;
  Floor floor;
  Batches time;
  std::string alone_by;  // the same by a library's own kernel and nothing around it, where there is such
  Batches alone;
  std::string failure;
};

class GpuBench {
 public:
  GpuBench(Backend& backend, Memory& memory, double seconds, std::string only);

  Context& context() { return context_; }
  bool real() const { return backend_.real(); }
  bool on_gpu() const { return backend_.name() == "cuda"; }
  const std::vector<TimedOp>& results() const { return results_; }
  TimedOp& last() { return results_.back(); }

  // Tensors live until the end of the scope that group() opens; it calls `progress` with what there is so far.
  ArenaScope group() {
    if (progress_) progress_();
    return ArenaScope(operands_);
  }
  void on_progress(std::function<void()> progress) { progress_ = std::move(progress); }
  void reserve(size_t bytes) { operands_.reserve(bytes); }
  Tensor empty(Shape shape, DType dtype = DType::bf16) { return operands_.empty(shape, dtype); }
  Tensor random(Shape shape, double std = 1, DType dtype = DType::bf16);
  Tensor ints(Shape shape, int64_t bound);
  template <class T>
  Tensor upload(Shape shape, const std::vector<T>& values) {
    const Tensor t = empty(shape, DTypeOf<T>::value);
    context_.upload<T>(t, values);
    return t;
  }

  // Returns whether it was timed: not if it is not wanted, or fails.
  template <class O>
  bool time(const std::string& what, const O& op, Floor floor) {
    TimedOp timed{.name = std::string(O::name),
                  .what = what,
                  .tensors = tensors_of(op),
                  .cost = cost_of(op),
                  .floor = std::move(floor),
                  .time = {},
                  .alone_by = {},
                  .alone = {},
                  .failure = {}};
    const bool wanted = (timed.name + " " + what).find(only_) != std::string::npos;
    try {
      if (wanted) {
        timed.time = measure([&] { context_.run(op); });
      } else {
        context_.run(op);  // others may read what it makes
      }
    } catch (const std::exception& error) {
      timed.failure = error.what();
    }
    const bool good = timed.failure.empty();
    if (wanted || !good) results_.push_back(std::move(timed));
    return wanted && good;
  }
  Batches measure(const std::function<void()>& run);

 private:
  template <class O>
  static std::string tensors_of(const O& op) {
    std::string text;
    op.visit([&](std::string_view name, const Tensor& t, Access) {
      if (t.defined()) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, t.str());
    });
    return text;
  }
  void wait();

  Backend& backend_;
  Context context_;
  Arena operands_;
  Arena scratch_;
  Tensor flag_;  // read to wait for what was started
  double seconds_;
  std::string only_;
  std::function<void()> progress_;
  uint64_t seed_ = 0;
  std::vector<TimedOp> results_;
};

}  // namespace sluice
