#include "launch/near_gpu.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <fstream>

namespace sluice::launch {
namespace {

// The first line of a file; empty where there is none.
std::string line_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || value < 0 || value >= CPU_SETSIZE) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::vector<int>> parse_cpu_list(std::string_view text) {
  std::vector<int> list;
  while (true) {
    const std::string_view part = text.substr(0, text.find(','));
    const size_t dash = part.find('-');
    const std::optional<int> first = number(part.substr(0, dash));
    const std::optional<int> last = dash == std::string_view::npos ? first : number(part.substr(dash + 1));
    if (!first || !last || *last < *first) return std::nullopt;
    for (int processor = *first; processor <= *last; ++processor) list.push_back(processor);
    if (part.size() == text.size()) break;
    text.remove_prefix(part.size() + 1);
  }
  std::sort(list.begin(), list.end());
  list.erase(std::unique(list.begin(), list.end()), list.end());
  return list;
}

std::vector<int> processors_near(const std::string& pci, const std::filesystem::path& system) {
  if (pci.empty()) return {};
  std::string name = pci;
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  const std::filesystem::path device = system / "bus/pci/devices" / name;
  if (const auto list = parse_cpu_list(line_of(device / "local_cpulist"))) return *list;
  const std::optional<int> node = number(line_of(device / "numa_node"));
  if (!node) return {};
  const std::string folder = "node" + std::to_string(*node);
  return parse_cpu_list(line_of(system / "devices/system/node" / folder / "cpulist")).value_or(std::vector<int>{});
}

OnProcessors::OnProcessors(const std::vector<int>& processors) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (processors.empty() || ::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t near;
  CPU_ZERO(&near);
  for (const int processor : processors) CPU_SET(processor, &near);
  cpu_set_t both;
  CPU_AND(&both, &near, &allowed);
  if (CPU_COUNT(&both) == 0 || CPU_EQUAL(&both, &allowed)) return;
  if (::sched_setaffinity(0, sizeof both, &both) == 0) before_ = allowed;
}

OnProcessors::~OnProcessors() {
  if (before_) ::sched_setaffinity(0, sizeof *before_, &*before_);
}

}  // namespace sluice::launch
