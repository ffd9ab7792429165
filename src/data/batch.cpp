#include "data/batch.h"

#include <algorithm>

#include "base/error.h"
#include "ops/head_loss.h"

namespace sluice {

Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> sample_ids, std::int64_t seq_len,
                 std::int64_t end) {
  require(seq_len >= 1, "a batch of sequences of {} tokens", seq_len);
  Batch batch;
  batch.tokens.reserve(sample_ids.size() * static_cast<std::size_t>(seq_len));
  batch.labels.reserve(batch.tokens.capacity());
  batch.sample_ids.assign(sample_ids.begin(), sample_ids.end());
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(seq_len) + 1);
  for (const std::int64_t id : sample_ids) {
    dataset.sample(id, tokens);
    batch.tokens.insert(batch.tokens.end(), tokens.begin(), tokens.end() - 1);
    if (id < end) {
      batch.labels.insert(batch.labels.end(), tokens.begin() + 1, tokens.end());
    } else {
      batch.labels.insert(batch.labels.end(), static_cast<std::size_t>(seq_len), kIgnoredLabel);
    }
  }
  return batch;
}

std::vector<std::int32_t> next_tokens(const Batch& batch, std::int64_t seq_len) {
  std::vector<std::int32_t> next = batch.tokens;
  const auto length = static_cast<std::size_t>(seq_len);
  for (std::size_t i = 0; i < next.size(); ++i) {
    if ((i + 1) % length != 0) next[i] = batch.tokens[i + 1];
  }
  return next;
}

std::vector<std::int32_t> next_labels(const Batch& batch, std::int64_t seq_len) {
  std::vector<std::int32_t> next(batch.labels.size(), kIgnoredLabel);
  const auto length = static_cast<std::size_t>(seq_len);
  for (std::size_t i = 0; i < next.size(); ++i) {
    if ((i + 1) % length != 0) next[i] = batch.labels[i + 1];
  }
  return next;
}

std::int64_t count_label_tokens(std::span<const std::int32_t> labels) {
  return std::ssize(labels) - std::ranges::count(labels, kIgnoredLabel);
}

}  // namespace sluice
