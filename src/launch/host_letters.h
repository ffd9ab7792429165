// What the launchers of a run's hosts tell each other, as the texts of letters.
#pragma once

#include <optional>
#include <string>

namespace sluice::launch {

// A launcher that comes to that of host 0.
struct HostIntroduction {
  int host = 0, hosts = 1;
  int processes = 1;  // of each host
  int restarts = 0;
  std::string name;  // of the machine

  bool operator==(const HostIntroduction&) const = default;
};

struct HostNews {
  enum class Kind {
    failed,  // to host 0: a process has, with `code`, as `text` says
    over,    // to host 0: all processes of the host have ended
    start,   // from host 0: start the processes, which meet at `port`
    end,     // from host 0: end them, because of a failure elsewhere, as `failed` says
    again,   // from host 0: all are over, and are to be started again
    done,    // from host 0: all are over, with `code`
  };
  Kind kind = Kind::over;
  int code = 0;
  int port = 0;
  bool failure = false, signalled = false;  // of `over`: whether a process has failed, and a signal was passed on
  std::string text = {};

  bool operator==(const HostNews&) const = default;
};

std::string to_text(const HostIntroduction& introduction);
std::string to_text(const HostNews& news);
// None for what is no such text.
std::optional<HostIntroduction> host_introduction_of(const std::string& text);
std::optional<HostNews> host_news_of(const std::string& text);

}  // namespace sluice::launch
