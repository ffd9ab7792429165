// `sluice launch`: this program several times, as the processes of one run.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <system_error>

#include "base/error.h"
#include "cli/command.h"
#include "cli/parser.h"
#include "cli/terminal.h"
#include "launch/local_plan.h"
#include "launch/local_processes.h"

namespace sluice::cli {
namespace {

struct LaunchOptions {
  launch::LaunchFlags flags;
  std::vector<std::string> words;
};

// By its name, which says more in a list of processes; one that was replaced meanwhile is still there for itself.
std::string own_program() {
  const std::filesystem::path self = "/proc/self/exe";
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink(self, failed);
  if (failed || !std::filesystem::equivalent(program, self, failed) || failed) return self.string();
  return program.string();
}

// Mistakes are found before each process would find them.
std::string checked_text(const LaunchOptions& options) {
  const std::vector<std::string>& words = options.words;
  if (words.empty()) {
    throw user_error("which command is to be started?")
        .at("command line")
        .advise("name it behind --, as in: sluice launch --nproc 2 -- train FILE");
  }
  if (words.front() == "launch") {
    throw user_error("sluice launch does not start itself")
        .at("command line")
        .advise("name the command that the processes run, as in: sluice launch --nproc 2 -- train FILE");
  }
  std::vector<Command> commands = all_commands();
  const Parsed parsed = parse(commands, words);
  if (parsed.command == nullptr) return parsed.text;
  const bool resumes = std::ranges::any_of(
      words, [](const std::string& word) { return word == "--resume" || word.starts_with("--resume="); });
  if (options.flags.restarts > 0 && parsed.command->name == "train" && !resumes) {
    throw user_error("--restarts {}, and the run would begin anew each time", options.flags.restarts)
        .at("command line")
        .advise("name sluice train --resume, which goes on from the newest checkpoint");
  }
  return "";
}

int run_launch(const LaunchOptions& options) {
  if (const std::string text = checked_text(options); !text.empty()) {
    print(text);
    return 0;
  }
  const launch::LocalPlan plan = launch::local_plan(options.flags, launch::Environment::of_process());
  std::vector<std::string> command{own_program()};
  command.insert(command.end(), options.words.begin(), options.words.end());
  return launch::run_processes(command, plan);
}

}  // namespace

Command launch_command() {
  auto options = std::make_shared<LaunchOptions>();
  launch::LaunchFlags& flags = options->flags;
  return {
      .name = "launch",
      .summary = "start a command in several processes, on one host or more",
      .details =
          "The command stands behind --, as in: sluice launch --nproc 2 -- train FILE. Its ranks are spread over the\n"
          "processes, which find each other by themselves on one host. Of several each has its own launcher: they "
          "wait\n"
          "for each other, and the processes of all hosts start, end and start again together. What is not given is\n"
          "read from torchrun's PET_ names.\n\n"
          "Lines of process N begin with [N], those of process 0 are as they are. Signals go to all processes. When\n"
          "one fails it is named, the others get SIGTERM and 10 s later SIGKILL, and its exit code is the launcher's.\n"
          "A command that is started again must go on where it was, as train --resume does.",
      .options = {{"--nproc", &flags.processes, "processes of this host (default: PET_NPROC_PER_NODE)", "N"},
                  {"--nnodes", &flags.nodes, "hosts of the run (default: PET_NNODES, else 1)", "N"},
                  {"--node-rank", &flags.node, "which of them this is, from 0 (default: PET_NODE_RANK)", "N"},
                  {"--master", &flags.master,
                   "where host 0 is found, with a port free there (default: PET_MASTER_ADDR, PET_MASTER_PORT)",
                   "HOST:PORT"},
                  {"--restarts", &flags.restarts, "start all again, on all hosts, after a failure, so often at most",
                   "N"}},
      .rest = &options->words,
      .run = [options] { return run_launch(*options); }};
}

}  // namespace sluice::cli
