// The one file that includes the graph library: half a minute to compile, twice that with its serialisation.
#include "device/cuda/attention_graph.h"

#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>
#include <fmt/core.h>

#include <unordered_map>

#include "base/error.h"

namespace sluice::cuda {

namespace {

namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using Attributes = fe::graph::Tensor_attributes;
using Node = std::shared_ptr<Attributes>;

// What cuDNN got right in all shapes this file asks for; earlier versions had other bounds and other bugs.
constexpr size_t kOldestVersion = 91900;

enum Uid : int64_t { kQ = 1, kK, kV, kO, kStats, kDO, kDQ, kDK, kDV };

// Heads of `dim` columns in rows `stride` apart.
Attributes heads_of(const AttentionProblem& p, Uid uid, int64_t heads, int64_t dim, int64_t stride) {
  return Attributes()
      .set_uid(uid)
      .set_data_type(fe::DataType_t::BFLOAT16)
      .set_dim({p.batch, heads, p.seq_len, dim})
      .set_stride({p.seq_len * stride, dim, stride, 1});
}

// Head by head: cuDNN before 9.26 ignores other strides in some of its kernels.
Attributes stats_of(const AttentionProblem& p) {
  return Attributes()
      .set_uid(kStats)
      .set_data_type(fe::DataType_t::FLOAT)
      .set_dim({p.batch, p.heads, p.seq_len, 1})
      .set_stride({p.heads * p.seq_len, p.seq_len, 1, 1});
}

void make_output(const Node& node, const Attributes& like) {
  node->set_output(true)
      .set_uid(like.get_uid())
      .set_data_type(like.get_data_type())
      .set_dim(like.get_dim())
      .set_stride(like.get_stride());
}

// Of the forward's and the backward's attributes alike.
template <class Options>
Options options_of(const AttentionProblem& p) {
  Options options;
  options.set_name(p.backward ? "attention_backward" : "attention_forward");
  options.set_attn_scale(static_cast<float>(p.scale));
  options.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT);
  options.set_diagonal_band_right_bound(0);
  // The bound counts the query's own position, as the window does.
  if (p.window > 0) options.set_diagonal_band_left_bound(p.window);
  return options;
}

void add_forward(Graph& graph, const AttentionProblem& p, const Node& q, const Node& k, const Node& v) {
  auto options = options_of<fe::graph::SDPA_attributes>(p);
  options.set_generate_stats(true);
  const auto [o, stats] = graph.sdpa(q, k, v, options);
  make_output(o, heads_of(p, kO, p.heads, p.v_dim, p.strides.o));
  make_output(stats, stats_of(p));
}

// dq is summed up by several blocks at once, in no fixed order: cuDNN's way of fixing it takes memory quadratic in
// the sequence.
void add_backward(Graph& graph, const AttentionProblem& p, const Node& q, const Node& k, const Node& v) {
  const Node o = graph.tensor(heads_of(p, kO, p.heads, p.v_dim, p.strides.o));
  const Node d_o = graph.tensor(heads_of(p, kDO, p.heads, p.v_dim, p.strides.d_o));
  const Node stats = graph.tensor(stats_of(p));
  const auto [dq, dk, dv] =
      graph.sdpa_backward(q, k, v, o, d_o, stats, options_of<fe::graph::SDPA_backward_attributes>(p));
  make_output(dq, heads_of(p, kDQ, p.heads, p.dim, p.strides.dq));
  make_output(dk, heads_of(p, kDK, p.kv_heads, p.dim, p.strides.dk));
  make_output(dv, heads_of(p, kDV, p.kv_heads, p.v_dim, p.strides.dv));
}

class Plan final : public AttentionPlan {
 public:
  Plan(std::shared_ptr<Graph> graph, int64_t index, std::string name, size_t workspace, cudnnHandle_t handle)
      : graph_(std::move(graph)), index_(index), name_(std::move(name)), workspace_(workspace), handle_(handle) {}

  const std::string& name() const override { return name_; }
  size_t workspace() const override { return workspace_; }

  void run(const AttentionOperands& at, void* workspace) override {
    require(handle_ != nullptr, "an attention plan for another GPU cannot run");
    std::unordered_map<int64_t, void*> operands{{kQ, at.q}, {kK, at.k}, {kV, at.v}, {kO, at.o}, {kStats, at.stats}};
    if (at.d_o != nullptr) operands.insert({{kDO, at.d_o}, {kDQ, at.dq}, {kDK, at.dk}, {kDV, at.dv}});
    fe::error_t status = graph_->execute_plan_at_index(handle_, operands, workspace, index_);
    if (status.is_bad()) throw runtime_failure("attention by cuDNN's {}: {}", name_, status.get_message());
  }

 private:
  std::shared_ptr<Graph> graph_;
  int64_t index_;
  std::string name_;
  size_t workspace_;
  cudnnHandle_t handle_;
};

}  // namespace

struct AttentionGraphs::State {
  cudnnHandle_t handle = nullptr;
  // Of a GPU that is not there.
  std::shared_ptr<const fe::DeviceProperties> described;
  int capability = 0;
  std::string unusable;

  ~State() {
    if (handle != nullptr) cudnnDestroy(handle);
  }

  // The first step to fail, or a plan.
  Built build(const AttentionProblem& p, size_t most_workspace) const;
};

AttentionGraphs::AttentionGraphs(void* stream) : state_(std::make_unique<State>()) {
  cudnnStatus_t status = cudnnCreate(&state_->handle);
  if (status == CUDNN_STATUS_SUCCESS) status = cudnnSetStream(state_->handle, static_cast<cudaStream_t>(stream));
  if (status != CUDNN_STATUS_SUCCESS) {
    state_->unusable = fmt::format("cuDNN does not start: {}", cudnnGetErrorString(status));
  } else if (cudnnGetVersion() < kOldestVersion) {
    state_->unusable = fmt::format("{} is too old", version());
  }
}

AttentionGraphs::AttentionGraphs(const DescribedGpu& gpu) : state_(std::make_unique<State>()) {
  auto described = std::make_shared<fe::DeviceProperties>();
  fe::error_t status = described->deserialize({gpu.json.begin(), gpu.json.end()});
  if (status.is_bad()) state_->unusable = fmt::format("the description of the GPU: {}", status.get_message());
  state_->described = std::move(described);
  state_->capability = gpu.capability;
}

AttentionGraphs::~AttentionGraphs() = default;

AttentionGraphs::Built AttentionGraphs::State::build(const AttentionProblem& p, size_t most_workspace) const {
  const auto graph = std::make_shared<Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  if (described) graph->set_device_properties(described).set_sm_version(capability);
  const Node q = graph->tensor(heads_of(p, kQ, p.heads, p.dim, p.strides.q));
  const Node k = graph->tensor(heads_of(p, kK, p.kv_heads, p.dim, p.strides.k));
  const Node v = graph->tensor(heads_of(p, kV, p.kv_heads, p.v_dim, p.strides.v));
  (p.backward ? add_backward : add_forward)(*graph, p, q, k, v);

  fe::error_t status = graph->validate();
  if (status.is_good()) status = graph->build_operation_graph(handle);
  if (status.is_good()) status = graph->create_execution_plans({fe::HeurMode_t::A});
  if (status.is_bad()) return {.plan = nullptr, .why_none = status.get_message()};

  std::string why_none = "cuDNN proposes no plan";
  for (int64_t i = 0; i < graph->get_execution_plan_count(); ++i) {
    std::string name;
    int64_t workspace = 0;
    status = graph->get_plan_name_at_index(i, name);
    if (status.is_good()) status = graph->build_plan_at_index(i);
    if (status.is_good()) status = graph->get_workspace_size_plan_at_index(i, workspace);
    if (status.is_bad()) {
      why_none = status.get_message();
    } else if (static_cast<size_t>(workspace) > most_workspace) {
      why_none = fmt::format("{} takes {} bytes of workspace, more than {}", name, workspace, most_workspace);
    } else {
      return {.plan = std::make_unique<Plan>(graph, i, name, static_cast<size_t>(workspace), handle), .why_none = {}};
    }
  }
  return {.plan = nullptr, .why_none = why_none};
}

AttentionGraphs::Built AttentionGraphs::build(const AttentionProblem& problem, size_t most_workspace) {
  if (!state_->unusable.empty()) return {.plan = nullptr, .why_none = state_->unusable};
  try {
    return state_->build(problem, most_workspace);
  } catch (const fe::cudnnException& error) {
    return {.plan = nullptr, .why_none = error.what()};
  }
}

bool AttentionGraphs::available() {
  return true;
}

std::string AttentionGraphs::version() {
  const size_t number = cudnnGetVersion();
  return fmt::format("cuDNN {}.{}.{}", number / 10000, number / 100 % 100, number % 100);
}

}  // namespace sluice::cuda
