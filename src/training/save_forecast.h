// How long a save will keep training waiting.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

#include "checkpoint/rank_writer.h"

namespace sluice {

// Bytes per second that all ranks of a machine reach together.
struct SaveRates {
  double write = 0;  // to files, before they are synchronised
  double copy = 0;   // within host memory, while files are written
};

// By trying: a file in `folder` of `bytes`, or less, is written twice and removed; the second time, as in a save, while
// memory is copied within `room`. None where that cannot be done: what is wrong there a save will say.
std::optional<SaveRates> try_save_rates(const std::filesystem::path& folder, uint64_t bytes, std::span<std::byte> room);

// Those of a save of `bytes` by so many ranks, which all did what the first one did, and at the same time; where too
// little was copied to tell, as before.
SaveRates measured_rates(const SaveRates& before, uint64_t bytes, int ranks, const RankWriter::Work& first);

struct SaveSize {
  uint64_t bytes = 0;       // of all ranks of the machine
  uint64_t staging = 0;     // that they can copy aside
  double seconds_left = 0;  // from the begin of the save until weights change
};

// Seconds between the wish to change weights and the moment when they may be. By then write * seconds_left bytes are on
// the disk. The rest, R, is copied, while writing goes on with what was copied and makes room again; copying is what is
// waited for where there is room for all, writing where there is not:
//   max(R / copy, (R - staging) / write), and R / write without staging
double blocked_seconds(const SaveSize& size, const SaveRates& rates);

}  // namespace sluice
