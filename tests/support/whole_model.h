// A model of two layers whose parameters are random everywhere (gamma not 1, weights large enough to matter), as the
// trainer runs it on one rank in f64. Steps are small enough that gradients hardly differ from one to the next.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "data/mock.h"
#include "support/mutation.h"
#include "trainer/trainer.h"

namespace sluice::test {

class WholeModel {
 public:
  // `overrides` as on the command line.
  explicit WholeModel(const std::vector<std::string>& overrides, const std::string& family = "qwen3_moe");

  const RunSpec& spec() const { return spec_; }
  // A call with a new trainer on its first step.
  void with_trainer(const std::function<void(Trainer&)>& body) const;
  double loss(Trainer& trainer) const { return trainer.evaluate(dataset_, spec_.sampling.global_batch).loss; }

 private:
  RunSpec spec_;
  MockDataset dataset_;
};

// All parameters of a trainer on one rank; values and gradients are whole.
std::vector<Param*> parameters(Trainer& trainer);

// The experts every learned router chose, one after the other, and what losses say of them that only gradients are
// computed of: sums over layers and micro-batches since the last call, each mean over tokens times its T.
class RoutingTrace final : public OpObserver {
 public:
  explicit RoutingTrace(Context& ctx) : ctx_(ctx) { ctx.add_observer(this); }
  ~RoutingTrace() override { ctx_.remove_observer(this); }
  void after(const OpRecord& record) override;
  // What has been seen since the last call.
  std::vector<double> take();
  // Of softmax routers: E sum_e f_e mean_t p_te. f_e is the share of the micro-batch's slots, or that of `over`, by
  // layer.
  double take_balance();
  void balance_over(std::vector<std::vector<double>> shares) { shares_ = std::move(shares); }
  // The mean over t of (log sum_e exp logits_te)^2: of the routers, and of the head.
  double take_router_z();
  double take_head_z();

 private:
  void add_balance(const std::vector<double>& experts, const std::vector<double>& probs, size_t num_experts);

  Context& ctx_;
  std::vector<double> experts_;
  std::vector<std::vector<double>> shares_;
  size_t layers_seen_ = 0;
  double balance_ = 0;
  double router_z_ = 0;
  double head_z_ = 0;
};

}  // namespace sluice::test
