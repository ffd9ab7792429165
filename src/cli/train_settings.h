// What a file's settings mean for `sluice train` before it begins.
#pragma once

#include <string>

#include "trainer/run_spec.h"

namespace sluice::cli {

// User error for what of a configuration this command cannot do.
void check_settings(const Config& config);
// Warns of keys that have no effect on this model.
void warn_of_idle_keys(const Config& config, const RunSpec& spec);
// Says which keys of the file are left out, and why.
void say_ignored(const Config& config, const std::string& file);

}  // namespace sluice::cli
