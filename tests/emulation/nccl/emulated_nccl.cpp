#include "emulation/nccl/emulated_nccl.h"

#include "comm/inproc/inproc.h"
#include "comm/nccl/nccl.h"
#include "device/cuda/api.h"
#include "device/ref/ref_backend.h"

namespace sluice::emulation {

namespace {

// What is read and written goes through the stream; operations are not run here.
class QueuedBackend final : public RefBackend {
 public:
  QueuedBackend() { cuda::check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, 0), "cudaStreamCreate"); }
  ~QueuedBackend() override { cudaStreamDestroy(stream_); }
  QueuedBackend(const QueuedBackend&) = delete;
  QueuedBackend& operator=(const QueuedBackend&) = delete;

  void* compute_stream() const override { return stream_; }
  void read(const Tensor& t, void* to) override {
    cudaMemcpyAsync(to, t.raw(), t.bytes(), cudaMemcpyDeviceToDevice, stream_);
    cudaStreamSynchronize(stream_);
    if (check_) check_();
  }
  void write(const Tensor& t, const void* from) override {
    cudaMemcpyAsync(t.raw(), from, t.bytes(), cudaMemcpyDeviceToDevice, stream_);
    cudaStreamSynchronize(stream_);
  }
  void after_reads(std::function<void()> check) override { check_ = std::move(check); }

 private:
  cudaStream_t stream_ = nullptr;
  std::function<void()> check_;
};

}  // namespace

void run_nccl(const NcclRun& run, const std::function<void(NcclRank&)>& body) {
  const nccl::NcclOptions options{
      .timeout_s = run.timeout_s, .poll_s = 0.005, .message_axes = {"world", "pp", "pair"}, .calls_at_one = true};
  const auto on_rank = [&](Communicator& world) {
    QueuedBackend backend;
    backend.after_reads([&] { world.check_alive(); });
    Stream stream(backend.compute_stream());
    NcclRank rank{world, backend, stream};
    body(rank);
  };
  if (!run.strangers) return nccl::run_ranks(run.ranks, options, on_rank);
  run_ranks(run.ranks, {.timeout_s = 2 * run.timeout_s}, [&](Communicator& host) {
    const auto world = nccl::make_communicator(host.split("world", [](int) { return 0; }), host.rank(), options);
    on_rank(*world);
  });
}

}  // namespace sluice::emulation
