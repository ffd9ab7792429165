#include "trainer/batches.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace sluice {

GateForecast::GateForecast(std::shared_ptr<GateCounts> gate, const MeshSpec& mesh, const MeshCoordinates& at,
                           const Sampling& sampling, double headroom)
    : gate_(std::move(gate)),
      mesh_(mesh),
      first_of_group_(at.stage - at.ep),
      here_(at.ep),
      sampling_(sampling),
      headroom_(headroom) {}

// Every count grows, but no more tokens go to a rank than there are, and none goes to more ranks than it has experts.
// What comes here grows first: it is this rank's memory that is planned.
void GateForecast::add_headroom(std::vector<int32_t>& counts) const {
  const int64_t top_k = gate_->gate().top_k, num_experts = gate_->gate().num_experts;
  const int64_t tokens = sampling_.micro_batch * gate_->seq_len();
  int64_t sendable = tokens * std::min<int64_t>(top_k, mesh_.ep);
  for (size_t i = 0; i < counts.size() / 2; ++i) {
    const size_t rank = (static_cast<size_t>(here_) + i) % (counts.size() / 2);
    const auto grown = static_cast<int64_t>(std::ceil(counts[2 * rank] * headroom_));
    const int64_t sent = std::min({grown, tokens, sendable});
    sendable -= sent;
    const int64_t most_slots = sent * std::min<int64_t>(top_k, num_experts / mesh_.ep);
    const auto slots = static_cast<int64_t>(std::ceil(counts[2 * rank + 1] * headroom_));
    counts[2 * rank] = static_cast<int32_t>(sent);
    counts[2 * rank + 1] = static_cast<int32_t>(std::min(slots, most_slots));
  }
}

std::vector<int32_t> GateForecast::counts_sent_by(int source, int64_t step, int64_t micro_batch) const {
  // Ranks of a stage are ordered as the mesh is, tp and cp fastest: each reads the samples of its data-parallel rank.
  const int64_t dp_rank = (first_of_group_ + source) / (mesh_.cp * mesh_.tp);
  std::vector<int32_t> counts(static_cast<size_t>(2 * mesh_.ep), 0);
  for (const int64_t sample : sampling_.sample_ids(step, micro_batch, dp_rank)) gate_->add(sample, mesh_.ep, counts);
  if (headroom_ > 1) add_headroom(counts);
  return counts;
}

StepBatches::StepBatches(const Dataset* dataset, const Sampling& sampling, int dp_rank, int64_t seq_len,
                         const GateForecast* forecast)
    : dataset_(dataset), sampling_(sampling), dp_rank_(dp_rank), seq_len_(seq_len), forecast_(forecast) {}

LabelTokens StepBatches::prepare(int64_t step, int64_t end) {
  step_ = step;
  batches_.clear();
  const int64_t micro_batches = sampling_.micro_batches();
  if (dataset_ == nullptr) {
    const int64_t sequences = micro_batches * sampling_.micro_batch;
    return {sequences * seq_len_, sequences * (seq_len_ - 1)};
  }
  LabelTokens labels;
  for (int64_t m = 0; m < micro_batches; ++m) {
    batches_.push_back(make_batch(*dataset_, sampling_.sample_ids(step, m, dp_rank_), seq_len_, end));
    labels.own += count_label_tokens(batches_.back().labels);
    labels.next += count_label_tokens(next_labels(batches_.back(), seq_len_));
  }
  return labels;
}

LoadForecast StepBatches::load(Context& ctx, int micro_batch, const BatchTensors& into) {
  if (!ctx.real()) {
    if (forecast_ == nullptr) return {};
    return [forecast = forecast_, step = step_, micro_batch](int source) {
      return forecast->counts_sent_by(source, step, micro_batch);
    };
  }
  const Batch& batch = batches_[static_cast<size_t>(micro_batch)];
  if (into.tokens) ctx.upload<int32_t>(into.tokens, batch.tokens);
  if (into.labels) ctx.upload<int32_t>(into.labels, batch.labels);
  if (into.next_tokens) ctx.upload<int32_t>(into.next_tokens, next_tokens(batch, seq_len_));
  if (into.next_labels) ctx.upload<int32_t>(into.next_labels, next_labels(batch, seq_len_));
  ctx.upload<int64_t>(into.sample_ids, batch.sample_ids);
  return {};
}

}  // namespace sluice
