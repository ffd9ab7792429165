// Finds where a run went bad: the first operation that turned finite inputs into values that are not.
#pragma once

#include <string>

#include "device/context.h"

namespace sluice {

// Values of a floating tensor that are NaN or infinite.
int64_t count_non_finite(Backend& backend, const Tensor& t);

class FirstBadTensor : public OpObserver {
 public:
  // `what` begins the message: "loss is nan at step 318".
  FirstBadTensor(const Context& ctx, std::string what) : ctx_(ctx), what_(std::move(what)) {}

  // Throws a runtime error that names the tensor, the operation and its place, and how many values are bad.
  void before(const OpRecord& record) override;
  void after(const OpRecord& record) override;

 private:
  [[noreturn]] void report(const OpRecord& record, const OpTensor& tensor, int64_t bad, const char* role) const;
  const Context& ctx_;
  std::string what_;
};

}  // namespace sluice
