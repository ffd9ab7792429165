#include "trainer/gate_counts.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "base/error.h"

namespace sluice {

namespace {

// Tokens after which a gate gives the same experts again; `seq_len` where it does not within a sequence.
int64_t period_of(const GateSpec& gate, int64_t seq_len) {
  if (gate.kind != GateKind::published || gate.scored()) return seq_len;
  return std::min(seq_len, gate.num_experts / std::gcd(gate.num_experts, gate.top_k));
}

}  // namespace

GateCounts::GateCounts(const GateSpec& gate, int64_t seq_len) : gate_(gate), seq_len_(seq_len) {
  for (int64_t ep = 2; ep <= gate.num_experts; ++ep) {
    if (gate.num_experts % ep != 0) continue;
    Group& group = groups_[ep];
    group.first = values_;
    values_ += static_cast<size_t>(2 * ep);
    for (int64_t e = 0; e < gate.num_experts; ++e) {
      group.ranks.push_back(static_cast<int32_t>(e / (gate.num_experts / ep)));
    }
  }
}

std::vector<int32_t> GateCounts::count(int64_t sample) const {
  std::vector<int32_t> rows(values_, 0);
  std::vector<int32_t> experts(static_cast<size_t>(gate_.top_k));
  std::vector<int64_t> last_token(values_, -1);  // by the place of a rank's values
  const int64_t period = period_of(gate_, seq_len_);
  for (int64_t position = 0; position < period; ++position) {
    const int64_t token = sample * seq_len_ + position;
    // This token stands for those that lie whole periods behind it.
    const auto times = static_cast<int32_t>((seq_len_ - position + period - 1) / period);
    gate_experts(gate_, token, experts.data());
    for (const auto& [ep, group] : groups_) {
      for (const int32_t expert : experts) {
        const size_t at = group.first + 2 * static_cast<size_t>(group.ranks[static_cast<size_t>(expert)]);
        rows[at + 1] += times;
        if (last_token[at] != token) rows[at] += times;
        last_token[at] = token;
      }
    }
  }
  return rows;
}

const std::vector<int32_t>& GateCounts::rows_of(int64_t sample) {
  Sequence* sequence = nullptr;
  {
    const std::lock_guard lock(mutex_);
    sequence = &sequences_[sample];
  }
  std::call_once(sequence->counted, [&] { sequence->rows = count(sample); });
  return sequence->rows;
}

void GateCounts::count_ahead(int64_t samples, Pool& pool,
                             const std::function<void(int64_t done, int64_t all)>& progress) {
  std::atomic<int64_t> done = 0;
  pool.run(samples, [&](int64_t sample, int worker) {
    rows_of(sample);
    const int64_t now = ++done;
    if (worker == 0) progress(now, samples);
  });
}

void GateCounts::add(int64_t sample, int ep, std::vector<int32_t>& counts) {
  require(counts.size() == static_cast<size_t>(2 * ep), "{} counts of {} ranks", counts.size(), ep);
  if (ep == 1) {  // every token, with all its experts
    counts[0] += static_cast<int32_t>(seq_len_);
    counts[1] += static_cast<int32_t>(seq_len_ * gate_.top_k);
    return;
  }
  const auto found = groups_.find(ep);
  require(found != groups_.end(), "{} experts on {} ranks", gate_.num_experts, ep);
  const int32_t* rows = rows_of(sample).data() + found->second.first;
  for (size_t i = 0; i < counts.size(); ++i) counts[i] += rows[i];
}

}  // namespace sluice
