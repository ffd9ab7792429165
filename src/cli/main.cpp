// The way in and out: every failure becomes one message on stderr and an exit code, 2 for what the user can put right,
// 1 for the rest.
#include <csignal>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "cli/job_processes.h"
#include "cli/lost_file.h"
#include "cli/parser.h"
#include "cli/terminal.h"

namespace {

int report(const std::string& text, int code) {
  sluice::cli::print_error(text);
  return code;
}

int run(const std::vector<std::string>& arguments) {
  std::vector<sluice::cli::Command> commands = sluice::cli::all_commands();
  sluice::cli::Parsed parsed;
  try {
    parsed = sluice::cli::parse(commands, arguments);
    if (parsed.command != nullptr && parsed.command->one_process) {
      sluice::cli::refuse_several_processes(parsed.command->name);
    }
  } catch (const sluice::Error&) {
    sluice::cli::let_the_first_speak();
    throw;
  }
  if (parsed.command != nullptr) return parsed.command->run();
  sluice::cli::print(parsed.text);
  return 0;
}

}  // namespace

int main(int count, char** words) {
  sluice::cli::keep_standard_descriptors();
  sluice::log::set_width(sluice::cli::watched_width());
  std::signal(SIGXFSZ, SIG_IGN);  // a file at its limit is an error of its write
  sluice::cli::explain_lost_files();
  try {
    const int code = run({words + 1, words + count});
    sluice::cli::finish_output();
    return code;
  } catch (const sluice::Error& error) {
    return report(describe(error), error.kind() == sluice::ErrorKind::user ? 2 : 1);
  } catch (const std::bad_alloc&) {
    return report("out of memory\n       sluice plan FILE says how much a configuration needs", 1);
  } catch (const std::exception& error) {
    return report(error.what(), 1);
  }
}
