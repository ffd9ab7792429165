// Finds where a run went bad: the first operation that turned finite inputs into values that are not.
#pragma once

#include <string>
#include <string_view>

#include "device/context.h"

namespace sluice {

// Values of a floating tensor that are NaN or infinite.
int64_t count_non_finite(Backend& backend, const Tensor& t);

class FirstBadTensor : public OpObserver {
 public:
  // `what` begins the message: "loss is nan at step 318". `first_step`: the weights are those the run began with.
  FirstBadTensor(const Context& ctx, std::string what, bool first_step)
      : ctx_(ctx), what_(std::move(what)), first_step_(first_step) {}

  // Throws a runtime error that names the tensor, the operation and its place, and how many values are bad.
  void before(const OpRecord& record) override;
  void after(const OpRecord& record) override;

 private:
  [[noreturn]] void report(const OpRecord& record, const OpTensor& tensor, int64_t bad, const char* role) const;
  const Context& ctx_;
  std::string what_;
  bool first_step_;
};

// What to do about a step whose loss or gradient is not finite.
std::string_view advice_for_non_finite(bool first_step);

}  // namespace sluice
