#include "cli/lost_file.h"

#include <fmt/format.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "cli/terminal.h"

namespace sluice::cli {
namespace {

// The signal comes out of a read of the mapping, never out of an allocation, so that this may allocate and print.
void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const std::string file = file_mapped_at(info->si_addr);
  print_error(
      fmt::format("{}: bytes that were there when it was opened cannot be read\n"
                  "       it was cut short meanwhile, or its disk fails; with the file whole, start again",
                  file.empty() ? "a mapped file" : file));
  std::_Exit(1);
}

}  // namespace

void explain_lost_files() {
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, nullptr);
}

std::string file_mapped_at(const void* address) {
  // A line: begin-end permissions offset device inode path.
  std::ifstream maps("/proc/self/maps");
  const auto wanted = reinterpret_cast<uintptr_t>(address);
  for (std::string line; std::getline(maps, line);) {
    std::istringstream fields(line);
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::string permissions, offset, device, inode, path;
    fields >> std::hex >> begin >> dash >> end >> permissions >> offset >> device >> inode >> std::ws;
    if (wanted < begin || wanted >= end) continue;
    std::getline(fields, path);
    return path;
  }
  return {};
}

}  // namespace sluice::cli
