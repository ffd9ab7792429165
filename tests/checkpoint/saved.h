// Checkpoints made by hand: parameters with known elements, cut over any number of ranks in any way.
#pragma once

#include <algorithm>
#include <array>
#include <deque>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/file.h"
#include "base/hash.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/rank_writer.h"
#include "support/host_tensor.h"

namespace sluice::test {

// One state of one parameter, whole.
struct SavedState {
  ParamSpec param;
  StateKind kind = StateKind::value;
  HostTensor values;

  SavedState(const std::string& name, const Shape& shape, StateKind of, DType dtype, uint64_t seed)
      : param{.name = name, .shape = shape}, kind(of), values({shape.numel()}, dtype) {
    randomize(values, seed);
  }
  StateSlice slice(int64_t first, int64_t count) const {
    return {.kind = kind, .param = &param, .first = first, .values = values.tensor().rows(first, count)};
  }
};

// Of 1.2 MB and 4 bytes, in three types: more than a block, and several in one.
inline std::deque<SavedState> saved_states(uint64_t seed = 1) {
  std::deque<SavedState> states;
  states.emplace_back("large", Shape{300, 1000}, StateKind::value, DType::f32, seed);
  states.emplace_back("large", Shape{300, 1000}, StateKind::moment1, DType::bf16, seed + 1);
  states.emplace_back("large", Shape{300, 1000}, StateKind::moment2, DType::bf16, seed + 2);
  states.emplace_back("layers.0.norm", Shape{7}, StateKind::value, DType::f64, seed + 3);
  states.emplace_back("stack", Shape{2, 3, 5}, StateKind::value, DType::bf16, seed + 4);
  states.emplace_back("one", Shape{1}, StateKind::value, DType::f32, seed + 5);
  return states;
}

using Slices = std::vector<StateSlice>;

// Each parameter cut into a slice for each rank, where a random draw puts them; some have none.
inline std::vector<Slices> cut(const std::deque<SavedState>& states, int ranks, uint64_t seed) {
  std::vector<Slices> slices(static_cast<size_t>(ranks));
  for (const SavedState& state : states) {
    // The same for all states of a parameter.
    std::mt19937_64 random(hash64(state.param.name, seed));
    const int64_t all = state.param.shape.numel();
    std::vector<int64_t> ends = {all};
    for (int i = 1; i < ranks; ++i) ends.push_back(static_cast<int64_t>(random() % static_cast<uint64_t>(all + 1)));
    std::ranges::sort(ends);
    int64_t begin = 0;
    for (size_t rank = 0; rank < ends.size(); ++rank) {
      // Not always in the order of the ranks.
      Slices& of = slices[(rank + seed) % ends.size()];
      if (ends[rank] > begin) of.push_back(state.slice(begin, ends[rank] - begin));
      begin = ends[rank];
    }
  }
  return slices;
}

inline void write_manifest(const std::filesystem::path& directory, const std::vector<HashedFile>& files) {
  write_file_atomic(directory / kManifestFile, manifest_text({.version = "test", .files = files}));
}

inline void save(const std::filesystem::path& directory, const std::vector<Slices>& ranks) {
  std::filesystem::create_directories(directory);
  std::vector<HashedFile> files;
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    RankWriter writer(ranks[rank], directory / rank_file_name(static_cast<int>(rank)), {});
    files.push_back(writer.finish());
  }
  write_manifest(directory, files);
}

// What the manifest says of bytes that were written by hand.
inline HashedFile hashed(const std::string& name, const std::string& contents, uint64_t block_bytes = 1 << 20) {
  HashedFile file{.name = name, .bytes = contents.size(), .block_bytes = block_bytes, .hashes = {}};
  for (size_t at = 0; at < contents.size(); at += block_bytes) {
    file.hashes.push_back(hash64(std::string_view(contents).substr(at, block_bytes)));
  }
  return file;
}

inline std::vector<double> read_back(const Checkpoint& checkpoint, const SavedState& state, Pool* pool = nullptr) {
  const HostTensor to({state.param.shape.numel()}, state.values.tensor().dtype());
  checkpoint.read(std::array{Checkpoint::Wanted{state.kind, state.param.name, 0, to}}, pool);
  return to.values();
}

}  // namespace sluice::test
