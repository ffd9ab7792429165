// The manifest of a checkpoint: what it holds, of which run and step, and a hash of every block of its files. It is
// written last: a directory without one is no checkpoint.
//
// manifest.json begins with the XXH3 hash of all that follows it, so that a byte that has changed is noticed:
//   {"hash": "0123456789abcdef",
//    "format": 1, "step": 1200, ..., "files": [{"name": "rank-00000.safetensors", ...}]}
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

inline constexpr std::string_view kManifestFile = "manifest.json";
inline constexpr uint64_t kMaxManifestBytes = uint64_t{1} << 30;

// Blocks [i * block_bytes, (i + 1) * block_bytes) of a file, the last one shorter, and the hash64 of each.
struct HashedFile {
  std::string name;  // in the checkpoint's directory
  uint64_t bytes = 0;
  uint64_t block_bytes = 0;
  std::vector<uint64_t> hashes;

  bool operator==(const HashedFile&) const = default;
};

// A validation loss that was the lowest so far.
struct BestLoss {
  double loss = 0;
  int64_t step = 0;

  bool operator==(const BestLoss&) const = default;
};

// Where a run stands between two steps.
struct RunState {
  int64_t step = 0;              // steps made
  int64_t updates = 0;           // of the optimizer, which are the position in its schedules
  int64_t consumed_samples = 0;  // of the data, in its order; global
  int64_t schedule_steps = 0;    // that the schedules were made for: their horizon
  double first_loss = 0;
  std::vector<double> recent_losses;  // of the last steps, the newest last
  std::vector<int64_t> passed_over;   // samples where batches begin that are not trained on, of those to come
  std::optional<BestLoss> best;
  std::optional<double> validation_loss;  // the last one
  // Checkpoints of earlier versions do not have these.
  std::optional<int64_t> validated_at;  // the step of the last validation
  int64_t left_out_in_a_row = 0;        // of the last steps
  int64_t rollbacks = 0;                // to the checkpoint that the run stands on
  // That the configuration gave the schedules instead of their horizon, now or in an earlier part of the run.
  std::optional<int64_t> decay_steps, weight_decay_steps;

  bool operator==(const RunState&) const = default;
};

struct Manifest {
  std::string version;  // of the program that wrote it
  RunState run;
  std::map<std::string, std::string> settings;  // of the configuration: key -> value as YAML
  std::map<std::string, std::string> identity;  // of model and data: what -> value
  std::vector<HashedFile> files;

  bool operator==(const Manifest&) const = default;
};

std::string manifest_text(const Manifest& manifest);
// Text after the hash -> a file's text.
std::string seal_manifest(std::string_view body);
// What is read may be damaged or hostile: user errors that name `source` and what is wrong.
Manifest parse_manifest(std::string_view text, std::string_view source);

// One rank's part of it, for the rank that puts them together.
std::string hashed_file_text(const HashedFile& file);
HashedFile parse_hashed_file(std::string_view text, std::string_view source);

}  // namespace sluice
