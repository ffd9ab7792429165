#include "data/bytes.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"

namespace sluice {
namespace {

// Blocks of the split among the first `blocks` of the text.
std::int64_t blocks_in(TextSplit split, std::int64_t blocks, std::int64_t holdout_every) {
  const std::int64_t held_out = blocks / holdout_every;
  if (split == TextSplit::all) return blocks;
  return split == TextSplit::validation ? held_out : blocks - held_out;
}

std::int64_t count_blocks(const ByteText& text, const ByteOptions& options) {
  const std::int64_t seq_len = options.seq_len, every = options.holdout_every, samples = options.samples;
  if (seq_len < 1 || every < 2 || samples < 1) {
    throw user_error("text in blocks of seq_len {}, one of {} held out, {} samples at most", seq_len, every, samples)
        .advise("seq_len and samples must be at least 1, the held-out blocks one of at least 2");
  }
  const auto size = static_cast<std::int64_t>(text.bytes.size());
  const std::int64_t blocks = std::max<std::int64_t>(0, size - 1) / seq_len;
  const std::int64_t count = blocks_in(options.split, blocks, every);
  if (count >= 1) return std::min(count, samples);
  const bool validation = options.split == TextSplit::validation;
  const std::int64_t needed = validation ? every : 1;
  const std::string left_out = list_left_out(text);
  const char* const purpose = validation ? " for validation" : "";
  throw user_error("{} is too small: {} bytes in {} files give {} blocks of seq_len {}, one{} needs {}", text.name,
                   format_count(size), text.files, blocks, seq_len, purpose, needed)
      .advise((validation ? "give more text, a smaller seq_len, or hold out one of fewer blocks"
                          : "give more text or a smaller seq_len") +
              (left_out.empty() ? "" : "; left out were " + left_out));
}

}  // namespace

ByteDataset::ByteDataset(std::shared_ptr<const ByteText> text, const ByteOptions& options)
    : text_(std::move(text)), options_(options), size_(count_blocks(*text_, options)), order_(options.seed, size_) {}

std::string ByteDataset::identity() const {
  return fmt::format("{} bytes of text with hash {:016x}", text_->bytes.size(), hash64(text_->bytes));
}

std::int64_t ByteDataset::block(std::int64_t id) const {
  require(id >= 0, "text sample {}", id);
  const std::int64_t every = options_.holdout_every;
  if (options_.split == TextSplit::validation) return id % size_ * every + every - 1;
  const std::int64_t index = order_(id / size_, id % size_);
  // Of each `every` blocks the first every - 1 are for training.
  return options_.split == TextSplit::all ? index : index / (every - 1) * every + index % (every - 1);
}

void ByteDataset::sample(std::int64_t id, std::span<std::int32_t> tokens) const {
  require(std::ssize(tokens) == options_.seq_len + 1, "a text sample of {} tokens, not {}", tokens.size(),
          options_.seq_len + 1);
  const auto first = static_cast<std::size_t>(block(id) * options_.seq_len);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<unsigned char>(text_->bytes[first + i]);
}

}  // namespace sluice
