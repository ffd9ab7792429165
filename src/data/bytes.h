// Text as its bytes: a token is a byte. The text is cut into blocks of S + 1 bytes that start every S bytes (a block's
// last label is the next one's first input); every n-th block can be held out for validation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "data/dataset.h"
#include "data/permutation.h"

namespace sluice {

struct ByteText {
  std::string name;   // the path as given
  std::string bytes;  // the files, a NUL between two
  std::int64_t files = 0;
};

inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

// A file, all regular files below a directory, or all that a glob pattern matches, in the order of their names. Links
// are followed, but a file that is reached twice is read once; dangling links and devices are skipped.
// User errors: nothing there, not readable, no file, more than `max_bytes` in all.
std::shared_ptr<const ByteText> load_text(const std::filesystem::path& path, std::size_t max_bytes = kMaxTextBytes);

enum class TextSplit { all, train, validation };

struct ByteOptions {
  std::int64_t seq_len = 0;
  TextSplit split = TextSplit::all;
  std::int64_t holdout_every = 10;                                  // of so many blocks the last is for validation
  std::int64_t samples = std::numeric_limits<std::int64_t>::max();  // at most so many blocks, the first ones
  std::uint64_t seed = 0;                                           // of the order
};

// Validation blocks come in the order of the text, others in a new random order each epoch.
class ByteDataset : public Dataset {
 public:
  // User error where the text is too short for one block of the split.
  ByteDataset(std::shared_ptr<const ByteText> text, const ByteOptions& options);

  void sample(std::int64_t id, std::span<std::int32_t> tokens) const override;
  std::int64_t size() const override { return size_; }
  std::int64_t vocab_size() const override { return 256; }
  // The block that sample `id` is cut from; it starts at byte block * seq_len.
  std::int64_t block(std::int64_t id) const;

 private:
  std::shared_ptr<const ByteText> text_;
  ByteOptions options_;
  std::int64_t size_;
  Permutation order_;
};

}  // namespace sluice
