// Multi-token prediction: an extra layer beside the last one that predicts the token after the next
// [DeepSeek-V3, arXiv:2412.19437, section 2.2]:
//   z[t] = P [enorm(E[token t+1]) | hnorm(h[t])],  y = block(z),  logits[t] = W norm(y[t])  for token t+2
// Embedding E and head W are the model's own. h is the last layer's output after the final norm: the paper leaves it
// open, and public programs differ. The loss joins the model's with a weight that the caller puts into its gradient.
#pragma once

#include <string>

#include "nn/block.h"
#include "nn/embedding.h"
#include "nn/linear.h"
#include "nn/rmsnorm.h"

namespace sluice {

struct MtpSaved {
  Tensor embedded;       // [T, D] E[token t+1] (records)
  Tensor hidden;         // [T, D] h (records)
  Tensor embedded_rstd;  // [T] (records)
  Tensor hidden_rstd;    // [T] (records)
  Tensor z;              // [T, D] (records)
  Tensor y;              // [T, D] (records)
  Tensor dy;             // [T, D] (records)
  Tensor joined;         // [T, 2D] input of P (deferred: W; made again in backward)
  Tensor dz;             // [T, D] (deferred: W)
  BlockSaved block;
};

class Mtp {
 public:
  // `name` is the extra layer's: "layers.61".
  Mtp(const std::string& name, const BlockConfig& config, Communicator& ep);

  // From saved.embedded and saved.hidden to the extra loss [T] and saved.dy, the gradient of the sum of the losses
  // times loss_scale[0] (f64 [1]). `labels` i32 [T]: token t+2, or -100. The head's weight gradient is added to.
  void forward(Context& ctx, const Tensor& loss, const Tensor& labels, const Tensor& loss_scale, const Head& head,
               const BlockInput& input, const RecomputePolicy& recompute, MtpSaved& saved) const;
  // dembedded = and dhidden = the gradients of saved.embedded and saved.hidden, [T, D].
  void backward(Context& ctx, const Tensor& dembedded, const Tensor& dhidden, const BlockInput& input,
                const RecomputePolicy& recompute, MtpSaved& saved) const;
  void weight_grad(Context& ctx, const MtpSaved& saved) const;

  void visit(const ParamVisitor& visitor);

 private:
  // [T, 2D]: the normed embedding on the left.
  void join(Context& ctx, const Tensor& joined, const MtpSaved& saved) const;

  RmsNorm embedded_norm_;
  RmsNorm hidden_norm_;
  Linear projection_;
  Block block_;
  RmsNorm norm_;
};

}  // namespace sluice
