// AttentionPlans: attention by cuDNN's fused kernels, one plan per shape, built once and kept. bf16, causal, with
// optional window; scratch is scratch_bytes() (scratch.h). The backward adds dq
// up in no fixed order: its last bits differ from run to run.
#pragma once

#include <memory>
#include <optional>

#include "device/cuda/attention_graph.h"
#include "ops/attention.h"

namespace sluice::cuda {

class Device;

// What cuDNN is asked for an operation, and the workspace it may take; nothing if the operation is for the plain
// kernels: other types, heads under 64 columns or over 256, sequences of one token, past keys, rows at odd addresses.
struct AttentionRequest {
  AttentionProblem problem;
  size_t most_workspace = 0;
};
std::optional<AttentionRequest> request_of(const AttentionForward& op);
std::optional<AttentionRequest> request_of(const AttentionBackward& op);

class AttentionPlans {
 public:
  explicit AttentionPlans(Device& device);
  ~AttentionPlans();
  AttentionPlans(const AttentionPlans&) = delete;
  AttentionPlans& operator=(const AttentionPlans&) = delete;

  // Computes `op` on the device's stream, or returns false, with nothing done, if cuDNN has no plan for it (then the
  // plain kernel does it).
  bool run(const AttentionForward& op, const Tensor& scratch);
  bool run(const AttentionBackward& op, const Tensor& scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::cuda
