// meta: the backend that does nothing but charge. Operations advance the compute stream by a model of the target
// machine; their tensors have addresses and no contents. This is what `sluice plan` runs the trainer on.
#pragma once

#include <map>
#include <string>

#include "device/backend.h"
#include "device/rehearsal.h"
#include "device/roof.h"

namespace sluice {

// A machine as operations see it: time = overhead + max(flops / (peak x efficiency), bytes / bandwidth), or for an
// operation whose share of its roofline is known, overhead + max(flops / peak, bytes / bandwidth) / share. The peak is
// that of the operation's factors (see Cost).
struct DeviceModel {
  Target target;
  Roof roof = {.flops = 1e11, .bandwidth = 1e10};
  double op_overhead_s = 0;
  double matrix_efficiency = 0.8;                                  // share of the peak that products reach when large
  double other_efficiency = 0.05;                                  // share that arithmetic outside products reaches
  std::map<std::string, double, std::less<>> roofline_share = {};  // by operation name, where measured

  double seconds(OpId op, const Cost& cost) const;
};

namespace meta_detail {

// Gives every operation of the list an empty body.
template <class Base, class List>
class EmptyBodies;
template <class Base>
class EmptyBodies<Base, OpList<>> : public Base {
 protected:
  using Base::execute;
  template <class O>
  void tell(const O& op) {
    if constexpr (requires(Rehearsal& rehearsal) { rehearsal.add(op); }) {
      if (rehearsal_ != nullptr) rehearsal_->add(op);
    }
  }
  Rehearsal* rehearsal_ = nullptr;
};
template <class Base, class First, class... Rest>
class EmptyBodies<Base, OpList<First, Rest...>> : public EmptyBodies<Base, OpList<Rest...>> {
 protected:
  using EmptyBodies<Base, OpList<Rest...>>::execute;
  Outcome<First> execute(const First& op, const Tensor& /*scratch*/) final {
    this->tell(op);
    return Outcome<First>();
  }
};

}  // namespace meta_detail

class MetaBackend final : public meta_detail::EmptyBodies<Backend, AllOps> {
 public:
  explicit MetaBackend(DeviceModel model) : model_(std::move(model)) {}
  Target target() const override { return model_.target; }
  std::string_view name() const override { return "meta"; }
  bool real() const override { return false; }
  // From here on it hears of what is run; null: nobody does. It outlives this.
  void tell(Rehearsal* rehearsal) { rehearsal_ = rehearsal; }
  // Seconds charged so far, by operation.
  const std::map<OpId, double>& seconds_by_op() const { return seconds_; }

 protected:
  void charge(OpId op, const Cost& cost, Stream& stream) override;

 private:
  DeviceModel model_;
  std::map<OpId, double> seconds_;
};

}  // namespace sluice
