// A model of two layers whose parameters are random everywhere (gamma not 1, weights large enough to matter), as the
// trainer runs it on one rank in f64. Steps are small enough that gradients hardly differ from one to the next.
#pragma once

#include <string>
#include <vector>

#include "data/mock.h"
#include "support/mutation.h"
#include "train/trainer.h"

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

// The experts every learned router chose, one after the other, and what a balance loss says of them.
class RoutingTrace final : public OpObserver {
 public:
  explicit RoutingTrace(Context& ctx) : ctx_(ctx) { ctx.add_observer(this); }
  ~RoutingTrace() override { ctx_.remove_observer(this); }
  void after(const OpRecord& record) override;
  // What has been seen since the last call.
  std::vector<double> take();
  // Of softmax routers: the sum of E / (K T) sum_e load_e mean_t p_te over layers and micro-batches, each times its T.
  double take_balance();

 private:
  Context& ctx_;
  std::vector<double> experts_;
  double balance_ = 0;
};

}  // namespace sluice::test
