// inproc's ranks on one GPU: each communicator of each rank has a stream of its own, peers' buffers are read in place,
// and no kernel waits for another rank's.
#pragma once

#include "comm/inproc/mover.h"

namespace sluice::cuda {

// Ranks of a group whose buffers one kernel adds.
inline constexpr int kMostReducedRanks = 128;

// For buffers on this GPU. Builds without CUDA (absent.cpp) refuse.
std::unique_ptr<Mover> make_mover(int ordinal);

}  // namespace sluice::cuda
