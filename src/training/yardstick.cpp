#include "training/yardstick.h"

namespace sluice {

Yardstick::Yardstick(const RunSpec& spec, const LaunchOptions& options, std::optional<double> peak_tflops,
                     MachineInfo& machine)
    : spec_(spec), options_(options), machine_(machine), forecast_(forecast_run(spec, options, machine)) {
  if (peak_tflops) stated_peak_ = *peak_tflops * 1e12;
}

double Yardstick::mfu(double step_seconds) const {
  return forecast_.flops_per_step / (step_seconds * spec_.mesh.world * peak_flops());
}

void Yardstick::measure_again(Run run) {
  if (run == Run::goes_on && options_.device == DeviceKind::cuda) return;
  if (machine_.take_best(measure_for(spec_, options_))) forecast_ = forecast_run(spec_, options_, machine_);
}

void Yardstick::check(double step_seconds, Run run) {
  for (; !stated_peak_ && mfu(step_seconds) > 1 && checks_left_ > 0; --checks_left_) measure_again(run);
}

}  // namespace sluice
