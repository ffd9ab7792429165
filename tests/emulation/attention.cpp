// cuDNN's attention as the reference's loops, with cuDNN's rules: what attention_plans.cpp makes of an operation is
// tested by every bf16 attention that is for plans.
#include <cstring>
#include <vector>

#include "device/cuda/attention_graph.h"
#include "device/ref/ref_backend.h"
#include "emulation/streams.h"

namespace sluice::cuda {

namespace {

constexpr size_t kWorkspace = 256;

class Loops {
 public:
  explicit Loops(const AttentionProblem& problem) : p_(problem) {}

  void run(const AttentionOperands& at, void* workspace) {
    const int64_t rows = p_.batch * p_.seq_len;
    const AttentionSpec spec{.seq_len = p_.seq_len, .window = p_.window, .scale = p_.scale};
    const Tensor q = heads(at.q, p_.heads, p_.dim, p_.strides.q), k = heads(at.k, p_.kv_heads, p_.dim, p_.strides.k);
    const Tensor v = heads(at.v, p_.kv_heads, p_.v_dim, p_.strides.v);
    const Tensor o = heads(at.o, p_.heads, p_.v_dim, p_.strides.o);
    std::vector<float> lse_values(static_cast<size_t>(rows * p_.heads));
    const Tensor lse = tensor_of(lse_values.data(), {rows, p_.heads});
    auto* stats = static_cast<float*>(at.stats);
    std::memset(workspace, 0xff, kWorkspace);
    Stream stream;
    if (!p_.backward) {
      ref_.run(AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec}, {}, stream, {});
      for_each_statistic([&](size_t by_row, size_t by_head) { stats[by_head] = lse_values[by_row]; });
      std::memset(workspace, 0xff, kWorkspace);
      return;
    }
    for_each_statistic([&](size_t by_row, size_t by_head) { lse_values[by_row] = stats[by_head]; });
    ref_.run(AttentionBackward{.dq = heads(at.dq, p_.heads, p_.dim, p_.strides.dq),
                               .dk = heads(at.dk, p_.kv_heads, p_.dim, p_.strides.dk),
                               .dv = heads(at.dv, p_.kv_heads, p_.v_dim, p_.strides.dv),
                               .d_o = heads(at.d_o, p_.heads, p_.v_dim, p_.strides.d_o),
                               .o = o,
                               .lse = lse,
                               .q = q,
                               .k = k,
                               .v = v,
                               .spec = spec},
             {}, stream, {});
  }

 private:
  Tensor heads(void* data, int64_t num, int64_t dim, int64_t stride) const {
    const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 8 == 0 && dim % 8 == 0;
    require(data != nullptr && aligned, "an operand that cuDNN refuses: at {}, stride {}", data, stride);
    return {data, {p_.batch * p_.seq_len, num, dim}, DType::bf16, stride};
  }

  // Calls f with the place of each in [rows, heads] and in [batch, heads, seq_len].
  template <class F>
  void for_each_statistic(F&& f) const {
    for (int64_t t = 0; t < p_.batch * p_.seq_len; ++t) {
      for (int64_t h = 0; h < p_.heads; ++h) {
        f(static_cast<size_t>(t * p_.heads + h),
          static_cast<size_t>((t / p_.seq_len * p_.heads + h) * p_.seq_len + t % p_.seq_len));
      }
    }
  }

  AttentionProblem p_;
  RefBackend ref_;
};

class LoopsPlan final : public AttentionPlan {
 public:
  LoopsPlan(const AttentionProblem& problem, emulation::StreamQueue* stream) : problem_(problem), stream_(stream) {}

  const std::string& name() const override { return name_; }
  size_t workspace() const override { return kWorkspace; }
  void run(const AttentionOperands& at, void* workspace) override {
    emulation::put(stream_, [problem = problem_, at, workspace] { Loops(problem).run(at, workspace); });
  }

 private:
  AttentionProblem problem_;
  emulation::StreamQueue* stream_;
  std::string name_ = "loops";
};

}  // namespace

struct AttentionGraphs::State {
  emulation::StreamQueue* stream = nullptr;
};
AttentionGraphs::AttentionGraphs(void* stream)
    : state_(std::make_unique<State>(State{static_cast<emulation::StreamQueue*>(stream)})) {}
AttentionGraphs::AttentionGraphs(const DescribedGpu& /*gpu*/) : state_(std::make_unique<State>()) {}
AttentionGraphs::~AttentionGraphs() = default;

AttentionGraphs::Built AttentionGraphs::build(const AttentionProblem& problem, size_t most_workspace) {
  if (kWorkspace > most_workspace) return {.plan = nullptr, .why_none = "the workspace is too small"};
  return {.plan = std::make_unique<LoopsPlan>(problem, state_->stream), .why_none = {}};
}

bool AttentionGraphs::available() {
  return true;
}

std::string AttentionGraphs::version() {
  return "emulated";
}

}  // namespace sluice::cuda
