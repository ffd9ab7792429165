#include "trainer/non_finite.h"

#include <cmath>
#include <vector>

namespace sluice {

int64_t count_non_finite(Backend& backend, const Tensor& t) {
  if (!is_float(t.dtype()) || t.numel() == 0) return 0;
  return dispatch_float(t.dtype(), [&](auto type) {
    using T = decltype(type);
    int64_t bad = 0;
    const int64_t inner = t.shape().inner();
    // From the first row to the last, with what may lie between them.
    const int64_t span = (t.dim(0) - 1) * t.stride() + inner;
    std::vector<T> copy(static_cast<size_t>(span));
    backend.read(Tensor(t.raw(), {span}, t.dtype()), copy.data());
    for (int64_t row = 0; row < t.dim(0); ++row) {
      const T* values = copy.data() + row * t.stride();
      for (int64_t i = 0; i < inner; ++i) bad += std::isfinite(static_cast<double>(values[i])) ? 0 : 1;
    }
    return bad;
  });
}

// No rate has had an effect before the first step.
std::string_view advice_for_non_finite(bool first_step) {
  return first_step ? "the weights the run begins with make it so: look at where they come from, at "
                      "model.config.initializer_range, and whether runtime.dtype has their range"
                    : "lower optimizer.lr, set clip_grad_norm.max_norm, or look at the data of this step";
}

void FirstBadTensor::report(const OpRecord& record, const OpTensor& tensor, int64_t bad, const char* role) const {
  throw runtime_failure("{}: first bad tensor {}, {} {} of {} ({} of {} values)", what_, ctx_.place(), role,
                        tensor.name, record.name, bad, tensor.tensor.numel())
      .advise(std::string(advice_for_non_finite(first_step_)));
}

// Weights, or data that came from elsewhere, may be bad before any operation touched them.
void FirstBadTensor::before(const OpRecord& record) {
  for (const OpTensor& t : record.tensors) {
    if (t.access == Access::out) continue;
    if (const int64_t bad = count_non_finite(ctx_.backend(), t.tensor); bad > 0) report(record, t, bad, "input");
  }
}

void FirstBadTensor::after(const OpRecord& record) {
  for (const OpTensor& t : record.tensors) {
    if (t.access == Access::in) continue;
    if (const int64_t bad = count_non_finite(ctx_.backend(), t.tensor); bad > 0) report(record, t, bad, "output");
  }
}

}  // namespace sluice
