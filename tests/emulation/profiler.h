// A profiler that is attached to the emulated runtime while it lives, one at a time: what NVTX and the profiler's
// switch were told, by thread. Backends made before it do not speak to it.
#pragma once

#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace sluice::emulation {

class ProfilingTool {
 public:
  ProfilingTool();
  ~ProfilingTool();
  ProfilingTool(const ProfilingTool&) = delete;
  ProfilingTool& operator=(const ProfilingTool&) = delete;

  // Of a thread: "> NAME" opens a range, "<" closes one; "start" and "stop".
  std::vector<std::string> told_by(std::thread::id thread) const;
};

bool a_tool_listens();
void tell_tool(std::string_view what);

}  // namespace sluice::emulation
