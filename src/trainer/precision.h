// What a run computes in where its configuration leaves that open.
#pragma once

#include <optional>

#include "config/config.h"
#include "model/scale.h"
#include "trainer/run_spec.h"

namespace sluice {

// Whether neither a person nor the program that the file was written for says it.
bool precision_is_open(const Config& config);

// A published row is timed on a CPU in the precision it was published in, where the processor multiplies that
// (cpu::has_bf16_dot): sets runtime.dtype, unless it is given. Not at tiny size, which is there to compare layouts.
void take_published_precision(Config& config, std::optional<Scale> scale, bool has_bf16_dot);

// The run in another type, with the moments that the configuration wants for it.
RunSpec computed_in(RunSpec spec, const Config& config, DType dtype);

}  // namespace sluice
