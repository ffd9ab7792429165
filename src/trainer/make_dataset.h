// The data a configuration names.
#pragma once

#include <memory>

#include "config/config.h"
#include "data/dataset.h"
#include "trainer/run_spec.h"

namespace sluice {

// `section` ("dataset") and its place begin messages. User errors for data that is not there or has tokens the model
// does not know; null for a section that names none.
std::unique_ptr<Dataset> make_dataset(const Config& config, const config::Dataset& data, const std::string& section,
                                      const RunSpec& spec);

}  // namespace sluice
