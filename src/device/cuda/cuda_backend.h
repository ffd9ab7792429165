// The backend on a GPU. Libraries where they are best (cuBLASLt, cuDNN, CUTLASS), kernels of our own for the rest; one
// file per operation family, forward and backward together. f64, f32 and bf16 storage like the reference; results are
// the same from run to run, but for the last bits of cuDNN's attention backward. Where a library cannot, a plain kernel
// of the same file does.
#pragma once

#include "device/backend.h"
#include "device/cuda/cuda.h"
#include "device/cuda/device.h"
#include "device/cuda/profiling.h"

namespace sluice::cuda {

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);

  Target target() const override { return {.row_align = options_.row_align, .platform = Platform::gpu}; }
  std::string_view name() const override { return "cuda"; }
  void* compute_stream() const override { return device_.stream(); }
  void read(const Tensor& t, void* to) override;
  void write(const Tensor& t, const void* from) override;
  void synchronize() override { device_.synchronize(); }
  void after_reads(std::function<void()> check) override { after_read_ = std::move(check); }
  bool starts_profilers() const override { return true; }
  void record_profile(bool on) override { cuda::record_profile(on); }
  Device& device() { return device_; }

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

 private:
  void executed() override;
  CudaOptions options_;
  Device device_;
  std::function<void()> after_read_;
  std::unique_ptr<Ranges> nvtx_ = make_nvtx_ranges();
  bool said_that_loops_wait_ = false;  // of grouped products
};

}  // namespace sluice::cuda
