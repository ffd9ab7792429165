#include <memory>

#include "cli/command.h"
#include "cli/outputs.h"
#include "cli/plan.h"

namespace sluice::cli {

Command plan_command() {
  auto options = std::make_shared<PlanOptions>();
  return {
      .name = "plan",
      .summary = "memory per rank and step time on a machine you need not have",
      .details = "Exit code 0 when it fits, 1 when it does not.",
      .options = {{"FILE", &options->file, "the configuration", "", {}, true},
                  {"--ranks", &options->ranks,
                   "ranks to plan for (default: those of the published row, or as few as FILE allows)", "N"},
                  {"--profile", &options->profile, "the machine (default: dgx-h100; another name lists them)", "NAME"},
                  {"--scale", &options->scale, "shrink the model first", "laptop|tiny", {"laptop", "tiny"}},
                  {"--json", &options->json, "also write the plan to a file", "FILE"},
                  overwrite_option(options->overwrite)},
      .overrides = &options->overrides,
      .run = [options] { return run_plan(*options); }};
}

}  // namespace sluice::cli
