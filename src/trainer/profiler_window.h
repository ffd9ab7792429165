// ProfilerWindow: the steps of a benchmark that a profiler records (benchmark.nsys_*), which waits for
// cudaProfilerStart and cudaProfilerStop. As in NeMo AutoModel steps count from 0, warm-up included.
#pragma once

#include <cstdint>

#include "trainer/trainer.h"

namespace sluice {

class ProfilerWindow {
 public:
  // On every rank. A user error where the keys name a rank or a step that the run does not have; rank 0 says it where
  // they have no effect because the device has no such profiler.
  ProfilerWindow(Trainer& trainer, const config::Benchmark& keys);
  ~ProfilerWindow();
  ProfilerWindow(const ProfilerWindow&) = delete;
  ProfilerWindow& operator=(const ProfilerWindow&) = delete;
  ProfilerWindow(ProfilerWindow&&) = delete;
  ProfilerWindow& operator=(ProfilerWindow&&) = delete;

  // Outside of the timed part of a step. What is still recorded when the window goes is stopped then.
  void before(int64_t step);
  void after(int64_t step);

 private:
  Backend& backend_;
  int64_t first_ = -1;  // -1: this rank records nothing
  int64_t last_ = -1;
  bool recording_ = false;
};

}  // namespace sluice
