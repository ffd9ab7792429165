// What a file written for NeMo AutoModel leaves out has that program's value, and a class of torch brings torch's. The
// recipe says whose defaults hold; a section with a `_target_` follows that class. sluice's own recipes have sluice's.
#pragma once

#include "config/config.h"

namespace sluice::config {

// Lays the defaults of the file's program over what nobody gave, and of NeMo's benchmark over what the file gives and
// that recipe does not do. To be called again after a value has changed: some follow from others.
void apply_program_defaults(Config& config);

// Warm-up of a run of so many steps: what is given, else a tenth of it, at most 1000, where null or NeMo's default
// stands.
std::int64_t warmup_steps(const Config& config, std::int64_t steps);

}  // namespace sluice::config
