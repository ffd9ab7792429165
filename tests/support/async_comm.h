// Whether this run of the tests gives every communicator a worker of its own, as --async-comm does.
#pragma once

#include <cstdlib>

namespace sluice {

// Set by .ci/run for its sanitizer stages: missing waits then show as races.
inline bool async_comm() {
  return std::getenv("SLUICE_ASYNC_COMM") != nullptr;
}

}  // namespace sluice
