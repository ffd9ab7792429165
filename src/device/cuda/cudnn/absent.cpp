// For builds without cuDNN or the headers of its graph library.
#include "device/cuda/attention_graph.h"

namespace sluice::cuda {

struct AttentionGraphs::State {};
AttentionGraphs::AttentionGraphs(void* /*stream*/) {}
AttentionGraphs::AttentionGraphs(const DescribedGpu& /*gpu*/) {}
AttentionGraphs::~AttentionGraphs() = default;

AttentionGraphs::Built AttentionGraphs::build(const AttentionProblem& /*problem*/, size_t /*most_workspace*/) {
  return {.plan = nullptr, .why_none = "sluice was built without cuDNN's graph library"};
}

bool AttentionGraphs::available() {
  return false;
}

std::string AttentionGraphs::version() {
  return "no cuDNN: attention is done by plain kernels";
}

}  // namespace sluice::cuda
