#include "emulation/profiler.h"

#include <map>
#include <mutex>

namespace sluice::emulation {

namespace {

struct Told {
  std::mutex mutex;
  bool listens = false;
  std::map<std::thread::id, std::vector<std::string>> by_thread;
};

Told& told() {
  static Told the_told;
  return the_told;
}

}  // namespace

ProfilingTool::ProfilingTool() {
  const std::scoped_lock lock(told().mutex);
  told().by_thread.clear();
  told().listens = true;
}

ProfilingTool::~ProfilingTool() {
  const std::scoped_lock lock(told().mutex);
  told().listens = false;
}

std::vector<std::string> ProfilingTool::told_by(std::thread::id thread) const {
  const std::scoped_lock lock(told().mutex);
  const auto found = told().by_thread.find(thread);
  return found == told().by_thread.end() ? std::vector<std::string>() : found->second;
}

bool a_tool_listens() {
  const std::scoped_lock lock(told().mutex);
  return told().listens;
}

void tell_tool(std::string_view what) {
  const std::scoped_lock lock(told().mutex);
  if (told().listens) told().by_thread[std::this_thread::get_id()].emplace_back(what);
}

}  // namespace sluice::emulation
