// Messages to the person at the terminal, on stderr: "[rank 3] warning: text". Safe from any thread.
// This is the only place that holds mutable global state: the level, the rank each thread speaks
// for, and what the terminal shows.
#pragma once

#include <fmt/core.h>

#include <cstddef>
#include <string_view>
#include <utility>

namespace sluice::log {

enum class Level { debug, info, warn, error, off };

// Messages below `level` are dropped; info at the start.
void set_level(Level level);
bool enabled(Level level);

// Columns of the terminal that stderr is, at which messages are broken; 0, as at the start: they are not.
void set_width(std::size_t columns);
// Whether a line that is written over (see Progress) stands on stderr without its end: the next message takes its
// place.
void set_line_shown(bool shown);

// Puts one message out, ready formatted. What a terminal could take for a command is made printable.
void write(Level level, std::string_view message);

// While alive, this thread's messages carry "[rank N]". Nothing is shown in a world of one.
class RankScope {
 public:
  RankScope(int rank, int world);
  ~RankScope();
  RankScope(const RankScope&) = delete;
  RankScope& operator=(const RankScope&) = delete;

 private:
  int previous_;
};

template <class... Args>
void write_format(Level level, fmt::format_string<Args...> format, Args&&... args) {
  if (enabled(level)) write(level, fmt::vformat(format, fmt::make_format_args(args...)));
}
template <class... Args>
void debug(fmt::format_string<Args...> format, Args&&... args) {
  write_format(Level::debug, format, std::forward<Args>(args)...);
}
template <class... Args>
void info(fmt::format_string<Args...> format, Args&&... args) {
  write_format(Level::info, format, std::forward<Args>(args)...);
}
template <class... Args>
void warn(fmt::format_string<Args...> format, Args&&... args) {
  write_format(Level::warn, format, std::forward<Args>(args)...);
}
template <class... Args>
void error(fmt::format_string<Args...> format, Args&&... args) {
  write_format(Level::error, format, std::forward<Args>(args)...);
}

}  // namespace sluice::log
