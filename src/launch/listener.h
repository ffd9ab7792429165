// The socket at which process 0 is found, handed from the launcher to process 0: the launcher chooses a free port by
// listening there itself, so that no other program can take it before process 0 does.
#pragma once

#include <optional>

#include "base/descriptor.h"
#include "launch/environment.h"

namespace sluice::launch {

// The name that tells process 0 the descriptor it has inherited.
inline constexpr const char* kListenerName = "SLUICE_LISTENER";

// What the launcher has left for this process, which is closed on exec from now on. Nothing where no descriptor is
// named, or one that does not listen at `port`: the name may have come by way of another process.
std::optional<Descriptor> inherited_listener(const Environment& environment, int port);

}  // namespace sluice::launch
