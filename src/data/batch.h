// The tokens of one micro-batch.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "data/dataset.h"

namespace sluice {

// B sequences of S tokens.
struct Batch {
  std::vector<std::int32_t> tokens;      // [B * S]
  std::vector<std::int32_t> labels;      // [B * S], the next token; -100 where it is not to be learnt
  std::vector<std::int64_t> sample_ids;  // [B]
};

// Samples from number `end` on only fill the batch: none of their tokens is to be learnt.
Batch make_batch(const Dataset& dataset, std::span<const std::int64_t> sample_ids, std::int64_t seq_len,
                 std::int64_t end = std::numeric_limits<std::int64_t>::max());

// Of the following position of each sequence [B * S]. The last position has none: the token there is its own, the label
// -100.
std::vector<std::int32_t> next_tokens(const Batch& batch, std::int64_t seq_len);
std::vector<std::int32_t> next_labels(const Batch& batch, std::int64_t seq_len);

// Labels that count in the loss.
std::int64_t count_label_tokens(std::span<const std::int32_t> labels);

}  // namespace sluice
