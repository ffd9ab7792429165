// The fast path on a CPU: operations on f32 and bf16 cut into chunks of fixed size that run in the pool, with SIMD
// kernels chosen at run time. Everything else (f64, rare operations) falls through to the reference loops. Results do
// not depend on the number of threads, products of bf16 not on the machine either.
#pragma once

#include "device/cpu/bf16_dot.h"
#include "device/pool.h"
#include "device/ref/ref_backend.h"

namespace sluice {

class CpuBackend final : public RefBackend {
 public:
  // The pool outlives the backend and may be shared with those of other ranks. Without the processor's instruction for
  // products of bf16 they are made of multiply-adds, with the same results.
  explicit CpuBackend(Pool& pool, bool bf16_dot = cpu::has_bf16_dot()) : pool_(pool), bf16_dot_(bf16_dot) {}

  Target target() const override { return {.row_align = 1, .workers = pool_.threads()}; }
  std::string_view name() const override { return "cpu"; }

 protected:
  using RefBackend::execute;
  KernelSet execute(const Gemm& op, const Tensor& scratch) override;
  KernelSet execute(const GroupedGemm& op, const Tensor& scratch) override;
  KernelSet execute(const GroupedGemmWeight& op, const Tensor& scratch) override;
  KernelSet execute(const RmsNormForward& op, const Tensor& scratch) override;
  KernelSet execute(const RmsNormBackward& op, const Tensor& scratch) override;
  KernelSet execute(const ResidualRmsNormForward& op, const Tensor& scratch) override;
  void execute(const Rope& op, const Tensor& scratch) override;
  void execute(const MlaHeads& op, const Tensor& scratch) override;
  void execute(const MlaHeadsBackward& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionForward& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionBackward& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionSink& op, const Tensor& scratch) override;
  KernelSet execute(const AttentionSinkBackward& op, const Tensor& scratch) override;
  void execute(const AddBias& op, const Tensor& scratch) override;
  void execute(const BiasBackward& op, const Tensor& scratch) override;
  void execute(const SwigluForward& op, const Tensor& scratch) override;
  void execute(const SwigluBackward& op, const Tensor& scratch) override;
  void execute(const SoftmaxTopKForward& op, const Tensor& scratch) override;
  void execute(const SoftmaxTopKBackward& op, const Tensor& scratch) override;
  void execute(const RouterZBackward& op, const Tensor& scratch) override;
  void execute(const SigmoidTopKForward& op, const Tensor& scratch) override;
  void execute(const SigmoidTopKBackward& op, const Tensor& scratch) override;
  void execute(const ExpertSort& op, const Tensor& scratch) override;
  void execute(const GatherRows& op, const Tensor& scratch) override;
  void execute(const SumRows& op, const Tensor& scratch) override;
  void execute(const EmbeddingForward& op, const Tensor& scratch) override;
  void execute(const EmbeddingBackward& op, const Tensor& scratch) override;
  KernelSet execute(const HeadLoss& op, const Tensor& scratch) override;
  void execute(const AdamW& op, const Tensor& scratch) override;
  void execute(const Fill& op, const Tensor& scratch) override;
  void execute(const FillNormal& op, const Tensor& scratch) override;
  void execute(const Copy& op, const Tensor& scratch) override;
  void execute(const Add& op, const Tensor& scratch) override;
  void execute(const Sum& op, const Tensor& scratch) override;

 private:
  Pool& pool_;
  bool bf16_dot_;
};

}  // namespace sluice
