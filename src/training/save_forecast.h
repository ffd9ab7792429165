// How long a save will keep training waiting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "checkpoint/rank_writer.h"

namespace sluice {

// How fast all ranks of a machine save together. Writing is not even: what the system takes at once at first it may not
// take later on.
struct SaveSpeed {
  std::vector<double> written_at;  // seconds from the begin of a save: an equal part more of it is written
  double copy = 0;                 // bytes per second within host memory, while files are written
};

// By trying: a file in `folder` of `bytes`, or less, is written twice and removed; the second time, as in a save, while
// memory is copied within `room`. None where that cannot be done: what is wrong there a save will say.
std::optional<SaveSpeed> try_save_speed(const std::filesystem::path& folder, uint64_t bytes, std::span<std::byte> room);

// That of a save by so many ranks, which all did what the first one did, and at the same time; where too little was
// copied to tell, copying is as before.
SaveSpeed measured_speed(const SaveSpeed& before, int ranks, const RankWriter::Work& first);

struct SaveSize {
  uint64_t bytes = 0;       // of all ranks of the machine
  uint64_t staging = 0;     // that they can copy aside
  double seconds_left = 0;  // from the begin of the save until weights change
};

// Seconds between the wish to change weights and the moment when they may be. The rest, R, that is not written by then
// is copied, while writing goes on with what was copied and makes room again; copying is what is waited for where there
// is room for all, writing where there is not:
//   max(R / copy, time until all but `staging` bytes are written), and until all are written without staging
double blocked_seconds(const SaveSize& size, const SaveSpeed& speed);

}  // namespace sluice
