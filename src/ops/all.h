// The whole vocabulary of the engine.
#pragma once

#include "ops/attention.h"
#include "ops/attention_sink.h"
#include "ops/balance.h"
#include "ops/bias.h"
#include "ops/dispatch.h"
#include "ops/elementwise.h"
#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/head_loss.h"
#include "ops/mla.h"
#include "ops/optimizer.h"
#include "ops/rmsnorm.h"
#include "ops/rope.h"
#include "ops/router.h"
#include "ops/sigmoid_router.h"
#include "ops/swiglu.h"

namespace sluice {

template <Operation... Ops>
struct OpList {};

using AllOps =
    OpList<Gemm, GroupedGemm, GroupedGemmWeight, RmsNormForward, RmsNormBackward, ResidualRmsNormForward, RopeTable,
           Rope, MlaHeads, MlaHeadsBackward, AttentionForward, AttentionBackward, AttentionSink, AttentionSinkBackward,
           AddBias, BiasBackward, SwigluForward, SwigluBackward, SoftmaxTopKForward, SoftmaxTopKBackward,
           RouterZBackward, SigmoidTopKForward, SigmoidTopKBackward, ExpertLoad, BalanceLossBackward, BalanceBias,
           LoadShare, ForcedGate, DispatchPlan, ExpertSort, InvertIndex, GatherRows, SumRows, EmbeddingForward,
           EmbeddingBackward, HeadLoss, AdamW, ClipFactor, Fill, FillNormal, Copy, Add, Sum>;

}  // namespace sluice
