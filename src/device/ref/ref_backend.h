// The specification: every operation as plain loops, one thread, sums in f64 except where a contract says otherwise.
// Whole models run on it in f64. Rarely edited; one file per operation family, forward and backward together.
#pragma once

#include "device/backend.h"

namespace sluice {

class RefBackend : public Backend {
 public:
  Target target() const override { return {.row_align = 1, .workers = 1}; }
  std::string_view name() const override { return "ref"; }

 protected:
  KernelSet execute(const Gemm& op, const Tensor& scratch) override;
  KernelSet execute(const GroupedGemm& op, const Tensor& scratch) override;
  KernelSet execute(const GroupedGemmWeight& op, const Tensor& scratch) override;
  KernelSet execute(const RmsNormForward& op, const Tensor& scratch) override;
  KernelSet execute(const RmsNormBackward& op, const Tensor& scratch) override;
  KernelSet execute(const ResidualRmsNormForward& op, const Tensor& scratch) override;
  void execute(const RopeTable& op, const Tensor& scratch) override;
  void execute(const Rope& op, const Tensor& scratch) override;
  void execute(const MlaHeads& op, const Tensor& scratch) override;
  void execute(const MlaHeadsBackward& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionForward& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionBackward& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionSink& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionSinkBackward& op, const Tensor& scratch) override;
  void execute(const AddBias& op, const Tensor& scratch) override;
  void execute(const BiasBackward& op, const Tensor& scratch) override;
  void execute(const SigmoidTopKForward& op, const Tensor& scratch) override;
  void execute(const SigmoidTopKBackward& op, const Tensor& scratch) override;
  void execute(const ExpertLoad& op, const Tensor& scratch) override;
  void execute(const BalanceLossBackward& op, const Tensor& scratch) override;
  void execute(const BalanceBias& op, const Tensor& scratch) override;
  void execute(const LoadShare& op, const Tensor& scratch) override;
  void execute(const SwigluForward& op, const Tensor& scratch) override;
  void execute(const SwigluBackward& op, const Tensor& scratch) override;
  void execute(const SoftmaxTopKForward& op, const Tensor& scratch) override;
  void execute(const SoftmaxTopKBackward& op, const Tensor& scratch) override;
  void execute(const RouterZBackward& op, const Tensor& scratch) override;
  void execute(const ForcedGate& op, const Tensor& scratch) override;
  void execute(const DispatchPlan& op, const Tensor& scratch) override;
  void execute(const ExpertSort& op, const Tensor& scratch) override;
  void execute(const InvertIndex& op, const Tensor& scratch) override;
  void execute(const GatherRows& op, const Tensor& scratch) override;
  void execute(const SumRows& op, const Tensor& scratch) override;
  void execute(const EmbeddingForward& op, const Tensor& scratch) override;
  void execute(const EmbeddingBackward& op, const Tensor& scratch) override;
  KernelSet execute(const HeadLoss& op, const Tensor& scratch) override;
  void execute(const AdamW& op, const Tensor& scratch) override;
  void execute(const ClipFactor& op, const Tensor& scratch) override;
  void execute(const Fill& op, const Tensor& scratch) override;
  void execute(const FillNormal& op, const Tensor& scratch) override;
  void execute(const Copy& op, const Tensor& scratch) override;
  void execute(const Add& op, const Tensor& scratch) override;
  void execute(const Sum& op, const Tensor& scratch) override;
};

}  // namespace sluice
