#include "cli/command.h"

namespace sluice::cli {

std::vector<Command> all_commands() {
  return {bench_command(),  train_command(), eval_command(),   generate_command(), convert_command(),
          config_command(), plan_command(),  launch_command(), doctor_command()};
}

}  // namespace sluice::cli
