// The micro-batches of a rank, and what a plan knows of their routing without data.
#pragma once

#include <limits>
#include <memory>
#include <vector>

#include "comm/mesh.h"
#include "data/batch.h"
#include "data/sampling.h"
#include "nn/dispatcher.h"
#include "parallel/runtime.h"
#include "trainer/gate_counts.h"

namespace sluice {

// Row counts of the expert group from a gate that is a function of token ids: exact for a forced gate, the balanced
// load times `headroom` for a learned router, whose real counts only a run knows.
class GateForecast {
 public:
  GateForecast(std::shared_ptr<GateCounts> gate, const MeshSpec& mesh, const MeshCoordinates& at,
               const Sampling& sampling, double headroom);
  // DispatchPlan::counts of expert-parallel rank `source` for a micro-batch: [R, 2] values.
  std::vector<int32_t> counts_sent_by(int source, int64_t step, int64_t micro_batch) const;

 private:
  void add_headroom(std::vector<int32_t>& counts) const;

  std::shared_ptr<GateCounts> gate_;
  MeshSpec mesh_;
  int first_of_group_ = 0;  // stage rank of the expert group's rank 0
  int here_ = 0;            // this rank in it
  Sampling sampling_;
  double headroom_;
};

// Labels that count in a step's losses.
struct LabelTokens {
  int64_t own = 0;   // of the model
  int64_t next = 0;  // of the layer that predicts the token after the next

  LabelTokens& operator+=(const LabelTokens& other) {
    own += other.own;
    next += other.next;
    return *this;
  }
};

// Feeds the runtime from a dataset, or on meta, where that is null, from a forecast (null elsewhere).
class StepBatches : public MicroBatchSource {
 public:
  StepBatches(const Dataset* dataset, const Sampling& sampling, int dp_rank, int64_t seq_len,
              const GateForecast* forecast);
  // Makes the micro-batches of a step; returns the labels they have, of samples before number `end` alone.
  LabelTokens prepare(int64_t step, int64_t end = std::numeric_limits<int64_t>::max());

  LoadForecast load(Context& ctx, int micro_batch, const BatchTensors& into) override;

 private:
  const Dataset* dataset_;
  Sampling sampling_;
  int dp_rank_;
  int64_t seq_len_;
  const GateForecast* forecast_;
  int64_t step_ = 0;
  std::vector<Batch> batches_;
};

}  // namespace sluice
