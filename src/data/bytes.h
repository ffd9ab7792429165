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
#include <vector>

#include "data/dataset.h"
#include "data/permutation.h"
#include "data/text_split.h"

namespace sluice {

// Entries that were met and not read: how many, and the first ones' names.
struct LeftOut {
  std::int64_t count = 0;
  std::vector<std::string> first;

  void add(const std::string& name);
};

struct ByteText {
  std::string name;   // the path as given
  std::string bytes;  // the files, a NUL between two
  std::int64_t files = 0;
  LeftOut hidden;    // files and directories
  LeftOut not_text;  // files, with what they are
  LeftOut systems;   // directories of pseudo file systems
};

inline constexpr std::size_t kMaxTextBytes = std::size_t{1} << 30;

// A file, all regular files below a directory, or all that a glob pattern matches (** stands for directories of any
// depth, none too), in the order of their names. Links are followed, but a file that is reached twice is read once;
// dangling links, pipes and devices are skipped. Of what a directory holds or a pattern matches these are left out, and
// counted:
//   hidden entries of a directory (.git; a pattern matches them where it begins with a dot itself)
//   files that are not text by their contents: binary data, UTF-16, Git LFS pointers; any other encoding is text
//   pseudo file systems (/proc, /sys, /dev)
// A long search says on stderr how far it is.
// User errors: nothing there, not readable, a single file that is not text, no text at all, more than `max_bytes`.
std::shared_ptr<const ByteText> load_text(const std::filesystem::path& path, std::size_t max_bytes = kMaxTextBytes);

// "1 hidden (.git), 2 not text (a.png: a PNG image, b.bin: binary data)"; empty where nothing was left out.
std::string list_left_out(const ByteText& text);
// "notes: 3 files, 57.3 KiB of text; left out: 1 hidden (.git), 2 not text (a.png: a PNG image, b.bin: binary data)"
std::string describe(const ByteText& text);

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
  std::string identity() const override;
  // The block that sample `id` is cut from; it starts at byte block * seq_len.
  std::int64_t block(std::int64_t id) const;

 private:
  std::shared_ptr<const ByteText> text_;
  ByteOptions options_;
  std::int64_t size_;
  Permutation order_;
};

}  // namespace sluice
