// Signals are for threads that know what to do with them.
#pragma once

namespace sluice {

// From here on the calling thread gets none.
void block_signals();

}  // namespace sluice
