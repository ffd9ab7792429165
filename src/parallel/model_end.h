// The end of a model, on the last stage: final norm, head and loss and, where the model predicts more than the next
// token, the extra layer, with their parameter groups. That layer reads the embedding, and so does a head that is tied
// to it. It is the first stage's: if this is another, it has a copy, trained alike (Runtime adds up the gradients of
// the two).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/embedding.h"
#include "nn/mtp.h"
#include "parallel/unit.h"

namespace sluice {

struct StageConfig;

// One micro-batch from F to its last W. All but the labels only with an extra layer.
struct ModelEndSaved {
  Tensor labels;       // i32 [T], the next token
  Tensor next_tokens;  // i32 [T], what the extra layer embeds
  Tensor next_labels;  // i32 [T], what it predicts
  Tensor x;            // [T, D] the last layer's output
  Tensor rstd;         // [T] of the final norm
  MtpSaved mtp;
};

// Where a step's losses and gradients are scaled and summed, f64 [1] each.
struct LossTensors {
  Tensor grad_scale;
  Tensor mtp_grad_scale;
  Tensor loss;      // += the sum of the losses
  Tensor mtp_loss;  // += that of the extra layer's, unweighted
};

class ModelEnd {
 public:
  using UnitMaker = std::function<Unit(const std::string& name, const std::function<void(const ParamVisitor&)>& visit)>;
  // `embedding` and its unit, if this stage has them, outlive this.
  ModelEnd(const StageConfig& config, Communicator& ep, Embedding* embedding, Unit* embedding_unit,
           const UnitMaker& make_unit);

  bool predicts_further() const { return mtp_.has_value(); }
  // Adds to the losses and, where dx is defined, makes dx [T, D], the gradient of x by the model's own loss, and runs
  // the extra layer. The scratch arena is free again afterwards; records of `saved` must live until the backward.
  void forward(Context& ctx, const Tensor& dx, const Tensor& x, const LossTensors& losses, const BlockInput& input,
               const RecomputePolicy& recompute, ModelEndSaved& saved);
  // dx += what the extra layer's loss adds to the gradient of x. With `full` its weight gradients too.
  void backward(Context& ctx, const Tensor& dx, const BlockInput& input, const RecomputePolicy& recompute, bool full,
                ModelEndSaved& saved);
  void weight_grad(Context& ctx, const ModelEndSaved& saved) const;
  // See Head; the extra layer has no part in it.
  void logits(Context& ctx, const Tensor& logits, const Tensor& x) const;

  // After the last contribution of a step.
  void begin_reduce(Context& ctx) const;
  // In the order of the model.
  std::vector<Unit*> units();
  // The copy of the embedding, or null.
  FlatGroup* embedding_copy() const;

 private:
  // With the embedding if the head is tied to it.
  void gather_head(Context& ctx) const;
  void release_head() const;

  std::optional<Head> head_;
  Unit head_unit_;
  std::optional<Mtp> mtp_;
  Unit mtp_unit_;
  std::unique_ptr<Embedding> own_embedding_;
  Unit own_embedding_unit_;
  Embedding* embedding_ = nullptr;
  Unit* embedding_unit_ = nullptr;
  bool tied_;
};

}  // namespace sluice
