#include "launch/binding.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <sstream>

#include "base/text.h"
#include "launch/hosts.h"

namespace sluice::launch {
namespace {

// Of 0: this one.
std::vector<int> processors_of(pid_t process) {
  std::vector<int> processors;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(process, sizeof set, &set) != 0) return processors;
  for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &set)) processors.push_back(processor);
  }
  return processors;
}

// What a host has for the processes there.
struct HostShare {
  std::set<int> processors;
  int around = 0;
  int processes = 0;

  int available() const { return std::max(around, static_cast<int>(processors.size())); }
};

const char* way_out(Source source) {
  if (source == Source::mpi) return "each is kept on a core of its own, unless it is started by mpirun --bind-to none";
  if (source == Source::slurm) return "for N processors each: srun --cpus-per-task=N";
  return "what started them keeps them there (taskset, numactl, a launcher's option)";
}

}  // namespace

Place place_of_process() {
  return {.host = machine_name(),
          .processors = processors_of(0),
          .around = static_cast<int>(processors_of(::getppid()).size())};
}

std::string to_text(const Place& place) {
  return fmt::format("{} {}", place.around, fmt::join(place.processors, " "));
}

Place place_of(const std::string& text) {
  std::istringstream words(text);
  Place place;
  words >> place.around;
  for (int processor = 0; words >> processor;) place.processors.push_back(processor);
  return place;
}

std::string binding_note(const std::vector<Place>& places, std::optional<int64_t> threads, Source source) {
  std::map<std::string, HostShare> hosts;
  for (const Place& place : places) {
    HostShare& host = hosts[place.host];
    host.processors.insert(place.processors.begin(), place.processors.end());
    host.around = std::max(host.around, place.around);
    ++host.processes;
  }
  int kept = 0;
  std::string first;
  for (size_t process = 0; process < places.size(); ++process) {
    const Place& place = places[process];
    const HostShare& host = hosts.at(place.host);
    const int64_t share = std::max(1, host.available() / host.processes);
    const int64_t wanted = std::min(threads.value_or(share), share);
    const auto allowed = std::ssize(place.processors);
    if (allowed == 0 || allowed >= wanted || kept++ > 0) continue;
    first = fmt::format("process {} on host {} may run on {} of {} processors, and its share is {}", process,
                        printable_line(place.host), allowed, host.available(), share);
  }
  if (kept == 0) return "";
  const std::string others = kept == 1 ? "" : fmt::format(" ({} processes are kept so)", kept);
  return fmt::format("{}{}; {}", first, others, way_out(source));
}

}  // namespace sluice::launch
