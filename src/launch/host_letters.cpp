#include "launch/host_letters.h"

#include <fmt/format.h>

#include <sstream>

namespace sluice::launch {

std::string to_text(const HostIntroduction& i) {
  return fmt::format("{} {} {} {}\n{}", i.host, i.hosts, i.processes, i.restarts, i.name);
}

std::string to_text(const HostNews& n) {
  return fmt::format("{} {} {} {:d} {:d}\n{}", static_cast<int>(n.kind), n.code, n.port, n.failure, n.signalled,
                     n.text);
}

std::optional<HostIntroduction> host_introduction_of(const std::string& text) {
  std::istringstream words(text);
  HostIntroduction read;
  words >> read.host >> read.hosts >> read.processes >> read.restarts;
  if (!words || words.get() != '\n') return std::nullopt;
  read.name = text.substr(text.find('\n') + 1);
  // What says the same in other words is no such text.
  return to_text(read) == text ? std::optional(read) : std::nullopt;
}

std::optional<HostNews> host_news_of(const std::string& text) {
  std::istringstream words(text);
  HostNews read;
  int kind = 0;
  words >> kind >> read.code >> read.port >> read.failure >> read.signalled;
  const bool known = kind >= 0 && kind <= static_cast<int>(HostNews::Kind::done);
  if (!words || !known || words.get() != '\n') return std::nullopt;
  read.kind = static_cast<HostNews::Kind>(kind);
  read.text = text.substr(text.find('\n') + 1);
  return to_text(read) == text ? std::optional(read) : std::nullopt;
}

}  // namespace sluice::launch
