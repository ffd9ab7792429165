#include "device/cuda/attention_plans.h"

#include <map>

#include "base/log.h"
#include "device/cuda/attention_stats.h"
#include "device/cuda/device.h"
#include "device/cuda/scratch.h"

namespace sluice::cuda {

namespace {

constexpr int64_t kLeastDim = 64, kMostDim = 256;
// Elements of 16 bytes, which cuDNN moves at once.
constexpr int64_t kPiece = 8;

bool fits_head(int64_t dim) {
  return dim >= kLeastDim && dim <= kMostDim && dim % kPiece == 0;
}

// Rows that start at multiples of 16 bytes and whose elements are numbered by 32 bits.
bool fits(const Tensor& t) {
  return reinterpret_cast<uintptr_t>(t.raw()) % 16 == 0 && t.stride() % kPiece == 0 &&
         t.dim(0) * t.stride() <= INT32_MAX;
}

// Scratch: the statistics, then the plan's workspace.
void* workspace_of(const Tensor& scratch, const Tensor& lse) {
  return static_cast<char*>(scratch.raw()) + gpu::attention_stats_bytes(lse);
}

template <class Op>
std::optional<AttentionRequest> common_request(const Op& op) {
  const int64_t rows = op.q.dim(0), heads = op.q.dim(1), dim = op.q.dim(2), v_dim = op.v.dim(2);
  const int64_t seq_len = op.spec.seq_len, window = op.spec.window;
  bool all_fit = op.q.dtype() == DType::bf16 && rows > 0 && seq_len > 1 && fits_head(dim) && fits_head(v_dim);
  all_fit = all_fit && op.spec.past == 0;
  op.visit([&](std::string_view name, const Tensor& t, Access) { all_fit = all_fit && (name == "lse" || fits(t)); });
  // Within its workspace cuDNN has an f32 for each element of q, then one for each row and head, then more.
  all_fit = all_fit && rows * heads * dim <= INT32_MAX && rows * heads % 4 == 0;
  if (!all_fit) return std::nullopt;
  return AttentionRequest{
      .problem = {.batch = rows / seq_len,
                  .seq_len = seq_len,
                  .heads = heads,
                  .kv_heads = op.k.dim(1),
                  .dim = dim,
                  .v_dim = v_dim,
                  .window = window < seq_len ? window : 0,
                  .scale = op.spec.scale,
                  .strides = {.q = op.q.stride(), .k = op.k.stride(), .v = op.v.stride(), .o = op.o.stride()}},
      .most_workspace = gpu::scratch_bytes(op) - gpu::attention_stats_bytes(op.lse)};
}

template <class Op>
AttentionOperands common_operands(const Op& op, void* stats) {
  return {.q = op.q.raw(), .k = op.k.raw(), .v = op.v.raw(), .o = op.o.raw(), .stats = stats};
}

}  // namespace

std::string AttentionProblem::str() const {
  return fmt::format("attention {}: {} x {} tokens, {} / {} heads of {} / {}{}", backward ? "backward" : "forward",
                     batch, seq_len, heads, kv_heads, dim, v_dim, window > 0 ? fmt::format(", window {}", window) : "");
}

std::optional<AttentionRequest> request_of(const AttentionForward& op) {
  return common_request(op);
}

std::optional<AttentionRequest> request_of(const AttentionBackward& op) {
  auto request = common_request(op);
  if (request) {
    request->problem.backward = true;
    AttentionProblem::Strides& strides = request->problem.strides;
    strides.d_o = op.d_o.stride();
    strides.dq = op.dq.stride();
    strides.dk = op.dk.stride();
    strides.dv = op.dv.stride();
  }
  return request;
}

struct AttentionPlans::State {
  Device& device;
  // Made for the first problem that is for it.
  std::optional<AttentionGraphs> graphs;
  // Null where cuDNN has none.
  std::map<AttentionProblem, std::unique_ptr<AttentionPlan>> plans;

  AttentionPlan* plan_for(const AttentionRequest& request);
};

AttentionPlan* AttentionPlans::State::plan_for(const AttentionRequest& request) {
  const AttentionProblem& problem = request.problem;
  const auto known = plans.find(problem);
  if (known != plans.end()) return known->second.get();
  if (!graphs) graphs.emplace(device.stream());
  AttentionGraphs::Built built = graphs->build(problem, request.most_workspace);
  if (built.plan) {
    log::info("{}: {} of {}", problem.str(), built.plan->name(), AttentionGraphs::version());
  } else {
    log::warn("{}: the plain kernels do it, slowly: {}", problem.str(), built.why_none);
  }
  return plans.emplace(problem, std::move(built.plan)).first->second.get();
}

AttentionPlans::AttentionPlans(Device& device) : state_(new State{.device = device, .graphs = {}, .plans = {}}) {}
AttentionPlans::~AttentionPlans() = default;

bool AttentionPlans::run(const AttentionForward& op, const Tensor& scratch) {
  const auto request = request_of(op);
  AttentionPlan* plan = request ? state_->plan_for(*request) : nullptr;
  if (plan == nullptr) return false;
  const AttentionProblem& p = request->problem;
  auto* stats = static_cast<float*>(scratch.raw());
  plan->run(common_operands(op, stats), workspace_of(scratch, op.lse));
  transpose_stats(state_->device, op.lse.data<float>(), stats, p.batch, p.heads, p.seq_len);
  return true;
}

bool AttentionPlans::run(const AttentionBackward& op, const Tensor& scratch) {
  const auto request = request_of(op);
  AttentionPlan* plan = request ? state_->plan_for(*request) : nullptr;
  if (plan == nullptr) return false;
  const AttentionProblem& p = request->problem;
  auto* stats = static_cast<float*>(scratch.raw());
  transpose_stats(state_->device, stats, op.lse.data<float>(), p.batch, p.seq_len, p.heads);
  AttentionOperands operands = common_operands(op, stats);
  operands.d_o = op.d_o.raw();
  operands.dq = op.dq.raw();
  operands.dk = op.dk.raw();
  operands.dv = op.dv.raw();
  plan->run(operands, workspace_of(scratch, op.lse));
  return true;
}

}  // namespace sluice::cuda
