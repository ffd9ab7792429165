// `sluice doctor`: what this machine has, what sluice will use, what is in the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "device/cuda/cuda.h"
#include "machine/machine_info.h"

namespace sluice::cli {

struct Findings {
  MachineInfo machine;
  unsigned cores_there = 1;
  double quota = 0;  // cores' worth of time that the control group grants; 0: no limit
  double load = 0;   // cores that other processes kept busy
  uint64_t available = 0;
  std::string huge_pages;
  cuda::Gpus gpus;
  bool driver_there = false;  // of NVIDIA's
};

// At most `width` columns wide. The last line is the verdict.
std::string doctor_report(const Findings& findings, size_t width);
// "ready"; "ready, but busy: ..." where figures taken now are low; "not ready: ..." where sluice cannot run.
std::string verdict(const Findings& findings);

// 0 when ready, busy or not, 1 when not.
int run_doctor();

}  // namespace sluice::cli
