#include "support/whole_model.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "base/hash.h"
#include "comm/inproc/inproc.h"
#include "device/ref/ref_backend.h"
#include "support/host_tensor.h"
#include "support/training.h"

namespace sluice::test {

namespace {

std::vector<std::string> shrunk(const std::string& family, const std::vector<std::string>& overrides) {
  std::vector<std::string> all{
      "--model.config.num_hidden_layers=2",   "--model.config.vocab_size=11", "--model.config.hidden_size=6",
      "--model.config.num_experts_per_tok=2", "--dataset.seq_len=3",          "--step_scheduler.global_batch_size=4",
      "--step_scheduler.local_batch_size=2",  "--optimizer.eps=1e-12",        "--optimizer.lr=1e-5"};
  const std::map<std::string, std::vector<std::string>> sizes = {
      {"qwen3_moe",
       {"num_attention_heads=2", "num_key_value_heads=1", "head_dim=4", "num_experts=4", "moe_intermediate_size=3"}},
      {"deepseek_v3",
       {"num_attention_heads=2", "num_key_value_heads=2", "q_lora_rank=3", "kv_lora_rank=3", "qk_nope_head_dim=2",
        "qk_rope_head_dim=2", "v_head_dim=3", "intermediate_size=3", "moe_intermediate_size=3", "n_routed_experts=4",
        "n_group=2", "topk_group=1"}},
      {"gpt_oss",
       {"num_attention_heads=2", "num_key_value_heads=1", "head_dim=4", "num_local_experts=3", "intermediate_size=3",
        "sliding_window=2"}}};
  for (const std::string& size : sizes.at(family)) all.push_back("--model.config." + size);
  if (family == "qwen3_moe") all.emplace_back("--model.aux_loss_coef=0");
  all.insert(all.end(), overrides.begin(), overrides.end());
  return all;
}

void randomize_parameters(Trainer& trainer) {
  for (FlatGroup* group : trainer.stage().groups()) {
    for (const FlatGroup::Piece& piece : group->pieces()) {
      const ParamSpec& spec = piece.param->spec;
      const uint64_t seed = hash64(spec.name, 1);
      if (spec.init == InitKind::ones) {
        randomize(piece.value, seed, 0.3, 1);
      } else {
        randomize(piece.value, seed, 1 / std::sqrt(static_cast<double>(spec.shape[spec.shape.rank() - 1])));
      }
    }
    group->invalidate();
    group->end_gather(trainer.context());
  }
}

}  // namespace

WholeModel::WholeModel(const std::vector<std::string>& overrides, const std::string& family)
    : spec_(resolve(tiny_config(shrunk(family, overrides), family), 1)), dataset_(spec_.seed, spec_.model.vocab_size) {}

void WholeModel::with_trainer(const std::function<void(Trainer&)>& body) const {
  RefBackend backend;
  HostMemory memory;
  InprocWorld world(1);
  const auto communicator = world.communicator(0);
  Trainer trainer(spec_, {&backend, &memory, communicator.get()}, &dataset_, nullptr);
  randomize_parameters(trainer);
  body(trainer);
}

std::vector<Param*> parameters(Trainer& trainer) {
  std::vector<Param*> all;
  for (FlatGroup* group : trainer.stage().groups()) {
    all.insert(all.end(), group->params().begin(), group->params().end());
  }
  return all;
}

namespace {

const Tensor& named(const OpRecord& record, std::string_view name) {
  const auto found = std::ranges::find_if(record.tensors, [&](const OpTensor& t) { return t.name == name; });
  require(found != record.tensors.end(), "{} has no {}", record.name, name);
  return found->tensor;
}

// Over the rows of a matrix.
double sum_of_squared_lse(const std::vector<double>& logits, size_t width) {
  double sum = 0;
  for (size_t first = 0; first < logits.size(); first += width) {
    double exponentials = 0;
    for (size_t i = 0; i < width; ++i) exponentials += std::exp(logits[first + i]);
    sum += std::log(exponentials) * std::log(exponentials);
  }
  return sum;
}

// x w^T
std::vector<double> logits_of(const Tensor& x, const Tensor& w) {
  const std::vector<double> xs = values_of(x), ws = values_of(w);
  const auto dim = static_cast<size_t>(x.dim(1));
  std::vector<double> logits;
  for (size_t t = 0; t < xs.size(); t += dim) {
    for (size_t v = 0; v < ws.size(); v += dim) {
      logits.push_back(std::inner_product(xs.begin() + static_cast<int64_t>(t),
                                          xs.begin() + static_cast<int64_t>(t + dim),
                                          ws.begin() + static_cast<int64_t>(v), 0.0));
    }
  }
  return logits;
}

}  // namespace

void RoutingTrace::add_balance(const std::vector<double>& experts, const std::vector<double>& probs,
                               size_t num_experts) {
  std::vector<double> shares(num_experts);
  for (const double e : experts) shares[static_cast<size_t>(e)] += 1 / static_cast<double>(experts.size());
  if (!shares_.empty()) shares = shares_[layers_seen_++ % shares_.size()];
  for (size_t i = 0; i < probs.size(); ++i) {
    balance_ += static_cast<double>(num_experts) * shares[i % num_experts] * probs[i];
  }
}

void RoutingTrace::after(const OpRecord& record) {
  if (record.name == HeadLoss::name) {
    const Tensor& w = named(record, "w");
    head_z_ += sum_of_squared_lse(logits_of(named(record, "x"), w), static_cast<size_t>(w.dim(0)));
  }
  if (record.name != SoftmaxTopKForward::name && record.name != SigmoidTopKForward::name) return;
  const std::vector<double> experts = values_of(record.tensors.front().tensor);
  experts_.insert(experts_.end(), experts.begin(), experts.end());
  const Tensor& logits = named(record, "logits");
  const auto num_experts = static_cast<size_t>(logits.dim(1));
  router_z_ += sum_of_squared_lse(values_of(logits), num_experts);
  if (record.name == SoftmaxTopKForward::name) add_balance(experts, values_of(named(record, "probs")), num_experts);
}

double RoutingTrace::take_balance() {
  return std::exchange(balance_, 0);
}

double RoutingTrace::take_router_z() {
  return std::exchange(router_z_, 0);
}

double RoutingTrace::take_head_z() {
  return std::exchange(head_z_, 0);
}

std::vector<double> RoutingTrace::take() {
  return std::exchange(experts_, {});
}

}  // namespace sluice::test
