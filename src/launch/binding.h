// Which processors processes may run on, and what is to be said where a launcher has kept them from some.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/identity.h"

namespace sluice::launch {

struct Place {
  std::string host = {};
  std::vector<int> processors;  // that this process may run on
  int around = 0;               // that the process which started it may run on; 0: not known

  bool operator==(const Place& other) const { return host == other.host && processors == other.processors; }
};

Place place_of_process();
// Without the host.
std::string to_text(const Place& place);
Place place_of(const std::string& text);

// One sentence where processes may run on fewer processors than they would use: so many `threads`, else their share of
// those that their host's processes, or what started them, may run on. Empty where nothing is lost.
std::string binding_note(const std::vector<Place>& places, std::optional<int64_t> threads, Source source);

}  // namespace sluice::launch
