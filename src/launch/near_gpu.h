// The processors near a GPU, and threads that stay on them: a thread that feeds a GPU from the other socket sends every
// launch and every copy over the link between sockets. Memory follows, for Linux takes it where a thread first writes.
#pragma once

#include <sched.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::launch {

// "0-3,8": 0, 1, 2, 3, 8, in rising order; none for what is no such list.
std::optional<std::vector<int>> parse_cpu_list(std::string_view text);

// The processors near the device with this PCI address ("0000:3b:00.0"), or those of its NUMA node, as the system's
// files say. Empty where they do not.
std::vector<int> processors_near(const std::string& pci, const std::filesystem::path& system = "/sys");

// Keeps the calling thread, and those that it starts, on those of the processors that it may use, as long as the object
// lives. Nothing changes where there are none of them.
class OnProcessors {
 public:
  explicit OnProcessors(const std::vector<int>& processors);
  ~OnProcessors();
  OnProcessors(const OnProcessors&) = delete;
  OnProcessors& operator=(const OnProcessors&) = delete;
  OnProcessors(OnProcessors&&) = delete;
  OnProcessors& operator=(OnProcessors&&) = delete;

 private:
  std::optional<cpu_set_t> before_;  // to be put back
};

}  // namespace sluice::launch
