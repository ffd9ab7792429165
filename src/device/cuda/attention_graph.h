// Attention as cuDNN's graph library does it: what a plan is made for, and the plans. To build plans takes no GPU, only
// a description of one. In a build without cuDNN or its headers (cudnn/absent.cpp) there are no plans.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace sluice::cuda {

// Causal attention of bf16 over sequences laid end to end: one plan serves all calls that agree in this. Strides are
// elements from row to row; a row holds its heads side by side.
struct AttentionProblem {
  bool backward = false;
  int64_t batch = 0, seq_len = 0;
  int64_t heads = 0, kv_heads = 0, dim = 0, v_dim = 0;
  int64_t window = 0;  // keys a query sees, itself included; 0: all earlier ones
  double scale = 1;
  struct Strides {
    int64_t q = 0, k = 0, v = 0, o = 0;
    int64_t d_o = 0, dq = 0, dk = 0, dv = 0;  // backward only
    auto operator<=>(const Strides&) const = default;
  } strides;
  auto operator<=>(const AttentionProblem&) const = default;

  std::string str() const;
};

// Device addresses, 16-byte aligned. Forward writes o and stats, backward reads them.
struct AttentionOperands {
  void* q = nullptr;
  void* k = nullptr;
  void* v = nullptr;
  void* o = nullptr;
  void* stats = nullptr;  // log sum exp of the scores as f32 [batch, heads, seq_len]
  void* d_o = nullptr;
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;
};

class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
  // As cuDNN names its engine and the choices in it: "eng2_k24=7".
  virtual const std::string& name() const = 0;
  virtual size_t workspace() const = 0;
  // In stream order; `workspace` is 256-byte aligned.
  virtual void run(const AttentionOperands& operands, void* workspace) = 0;
};

// A GPU that is not there, in the terms of cuDNN's device descriptor.
struct DescribedGpu {
  std::string json;
  int capability = 0;  // 90 for sm_90
};

// Makes plans, and outlives them. Used by one thread at a time.
class AttentionGraphs {
 public:
  // For the calling thread's GPU; plans run on `stream`.
  explicit AttentionGraphs(void* stream);
  // Plans for another machine: they cannot run here.
  explicit AttentionGraphs(const DescribedGpu& gpu);
  ~AttentionGraphs();
  AttentionGraphs(const AttentionGraphs&) = delete;
  AttentionGraphs& operator=(const AttentionGraphs&) = delete;

  // The first of cuDNN's proposals that can be built and takes at most so many bytes; null if there is none, and why.
  struct Built {
    std::unique_ptr<AttentionPlan> plan;
    std::string why_none;
  };
  Built build(const AttentionProblem& problem, size_t most_workspace);

  static bool available();
  // "cuDNN 9.19.0", or what a build without does instead.
  static std::string version();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sluice::cuda
