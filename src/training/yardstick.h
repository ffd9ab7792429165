// What a run's speed is compared with: the machine's peak, and the time that a step's operations take at best. Progress
// and results ask the same object, so that one share has one denominator.
#pragma once

#include <optional>

#include "twin/forecast.h"

namespace sluice {

class Yardstick {
 public:
  // Forecasts the run on `machine`, which outlives this. `peak_tflops`: of a rank, instead of what is measured
  // (benchmark.peak_tflops).
  Yardstick(const RunSpec& spec, const LaunchOptions& options, std::optional<double> peak_tflops, MachineInfo& machine);

  const RunForecast& forecast() const { return forecast_; }
  // What the run computes in.
  DType dtype() const { return spec_.dtype; }
  // FLOP/s of a rank that MFU is a share of: the peak of products in the run's own type, where they have one.
  double peak_flops() const { return stated_peak_.value_or(forecast_.roof.peak(spec_.dtype)); }
  // Model FLOPs of a step that takes so long, over the peak.
  double mfu(double step_seconds) const;
  // The best time of a step's operations over the time it takes. Above one where caches serve what was counted as
  // memory traffic.
  double roofline_share(double step_seconds) const { return forecast_.roofline_seconds / step_seconds; }

  // A GPU is measured only outside of a run, which may have all its memory.
  enum class Run : uint8_t { goes_on, has_ended };
  // Measures the machine again; the better figures count from now on, and in `machine`.
  void measure_again(Run run);
  // Measures again, a few times in the life of this, where a step would have been faster than the peak: it was
  // measured while other processes were busy.
  void check(double step_seconds, Run run);

 private:
  RunSpec spec_;
  LaunchOptions options_;
  std::optional<double> stated_peak_;
  MachineInfo& machine_;
  RunForecast forecast_;
  int checks_left_ = 3;
};

}  // namespace sluice
