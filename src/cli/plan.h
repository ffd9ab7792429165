// `sluice plan`: does a configuration fit a machine, and how fast would it be; nothing is computed and no memory taken.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace sluice {

struct PlanOptions {
  std::string file;
  std::optional<int> ranks;            // default: one on this machine's CPU, else what the file is for
  std::string profile = "dgx-h100";    // a hardware profile's name, see profile_names()
  std::optional<std::string> scale;    // "laptop", "tiny"
  std::optional<std::string> json;     // file that gets the plan as one JSON object
  bool overwrite = false;              // it may be there
  std::vector<std::string> overrides;  // "--distributed.ep_size", "4", ...
};

// Prints the plan; returns the exit code: 0 when it fits, 1 when it does not.
int run_plan(const PlanOptions& options);

}  // namespace sluice
