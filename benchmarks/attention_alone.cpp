#include "attention_alone.h"

#include "device/cuda/attention_plans.h"

namespace sluice {

struct AttentionAlone::State {
  explicit State(void* stream) : graphs(stream) {}
  cuda::AttentionGraphs graphs;
};

AttentionAlone::AttentionAlone(void* stream) : state_(std::make_unique<State>(stream)) {}
AttentionAlone::~AttentionAlone() = default;

namespace {

AloneRun plan_of(cuda::AttentionGraphs& graphs, const std::optional<cuda::AttentionRequest>& request,
                 const cuda::AttentionOperands& operands, const Tensor& workspace) {
  AloneRun alone;
  if (!request) {
    alone.why_none = "not for cuDNN";
    return alone;
  }
  cuda::AttentionGraphs::Built built = graphs.build(request->problem, request->most_workspace);
  if (!built.plan) {
    alone.why_none = built.why_none;
    return alone;
  }
  const std::shared_ptr<cuda::AttentionPlan> plan = std::move(built.plan);
  alone.plan = plan->name();
  alone.run = [plan, operands, at = workspace.raw()] { plan->run(operands, at); };
  return alone;
}

}  // namespace

AloneRun AttentionAlone::plan(const AttentionForward& op, const Tensor& stats, const Tensor& workspace) {
  return plan_of(state_->graphs, cuda::request_of(op),
                 {.q = op.q.raw(), .k = op.k.raw(), .v = op.v.raw(), .o = op.o.raw(), .stats = stats.raw()}, workspace);
}

AloneRun AttentionAlone::plan(const AttentionBackward& op, const Tensor& stats, const Tensor& workspace) {
  return plan_of(state_->graphs, cuda::request_of(op),
                 {.q = op.q.raw(),
                  .k = op.k.raw(),
                  .v = op.v.raw(),
                  .o = op.o.raw(),
                  .stats = stats.raw(),
                  .d_o = op.d_o.raw(),
                  .dq = op.dq.raw(),
                  .dk = op.dk.raw(),
                  .dv = op.dv.raw()},
                 workspace);
}

}  // namespace sluice
