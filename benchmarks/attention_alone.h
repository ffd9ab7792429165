// cuDNN's attention without what the backend does around it: the yardstick of attention_forward and _backward. In
// builds without CUDA (attention_alone_absent.cpp) there is none.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "ops/attention.h"

namespace sluice {

// Empty where cuDNN has no plan, and why.
struct AloneRun {
  std::function<void()> run;
  std::string plan;
  std::string why_none;
};

class AttentionAlone {
 public:
  // On a cudaStream_t of the calling thread's GPU.
  explicit AttentionAlone(void* stream);
  ~AttentionAlone();
  AttentionAlone(const AttentionAlone&) = delete;
  AttentionAlone& operator=(const AttentionAlone&) = delete;

  // `stats` is f32 [T n] that forward writes and backward reads; `workspace` holds gpu::scratch_bytes(op) bytes. Both,
  // and the operation's tensors, must outlive the runs.
  AloneRun plan(const AttentionForward& op, const Tensor& stats, const Tensor& workspace);
  AloneRun plan(const AttentionBackward& op, const Tensor& stats, const Tensor& workspace);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice
