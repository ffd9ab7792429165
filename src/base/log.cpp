#include "base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>

#include "base/text.h"

namespace sluice::log {
namespace {

constexpr int no_rank = -1;
thread_local int thread_rank = no_rank;
std::atomic<std::size_t> width = 0;
std::atomic<bool> line_shown = false;

std::shared_ptr<spdlog::logger> make_logger() {
  const bool plain = std::getenv("NO_COLOR") != nullptr;
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>(plain ? spdlog::color_mode::never
                                                                          : spdlog::color_mode::automatic);
  auto logger = std::make_shared<spdlog::logger>("sluice", std::move(sink));
  logger->set_pattern("%v");
  logger->flush_on(spdlog::level::info);
  return logger;
}

// Never destroyed: threads may still speak while the process ends.
spdlog::logger& logger() {
  static const auto* const instance = new std::shared_ptr<spdlog::logger>(make_logger());
  return **instance;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
    case Level::off:
      break;
  }
  return spdlog::level::off;
}

// Colour is not the only carrier: everything but plain information is named.
std::string_view label(Level level) {
  switch (level) {
    case Level::debug:
      return "debug: ";
    case Level::warn:
      return "warning: ";
    case Level::error:
      return "error: ";
    case Level::info:
    case Level::off:
      break;
  }
  return "";
}

}  // namespace

void set_level(Level level) {
  logger().set_level(to_spdlog(level));
}

void set_width(std::size_t columns) {
  width = columns;
}

void set_line_shown(bool shown) {
  line_shown = shown;
}

bool enabled(Level level) {
  return level != Level::off && logger().should_log(to_spdlog(level));
}

void write(Level level, std::string_view message) {
  if (!enabled(level)) return;
  std::string text;
  if (thread_rank != no_rank) text = fmt::format("[rank {}] ", thread_rank);
  text += label(level);
  text += printable(message);
  if (const std::size_t columns = width; columns > 0) text = wrap(text, columns, 2);
  if (line_shown.exchange(false)) text.insert(0, "\r\033[K");
  logger().log(to_spdlog(level), spdlog::string_view_t(text));
}

RankScope::RankScope(int rank, int world) : previous_(thread_rank) {
  thread_rank = world > 1 ? rank : no_rank;
}
RankScope::~RankScope() {
  thread_rank = previous_;
}

}  // namespace sluice::log
