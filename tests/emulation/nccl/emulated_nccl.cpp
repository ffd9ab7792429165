#include "emulation/nccl/emulated_nccl.h"

#include <numeric>

#include "comm/inproc/inproc.h"
#include "comm/nccl/api.h"
#include "comm/nccl/nccl.h"
#include "comm/processes/courier.h"
#include "device/ref/ref_backend.h"

namespace sluice::emulation {

namespace {

// What is read and written goes through the stream; an operation runs on the host when what is there has ended.
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
  void synchronize() override { cudaStreamSynchronize(stream_); }
  void after_reads(std::function<void()> check) override { check_ = std::move(check); }

 protected:
  void charge(OpId /*op*/, const Cost& /*cost*/, Stream& /*stream*/) override { cudaStreamSynchronize(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
  std::function<void()> check_;
};

constexpr double kPoll = 0.005;

void run_worlds(int ranks, Courier* courier, const nccl::NcclOptions& options,
                const std::function<void(Communicator&)>& body) {
  if (courier == nullptr) return nccl::run_ranks(ranks, options, body);
  // All processes are of one test: their GPUs are told apart like their ranks.
  std::vector<int> gpus(static_cast<size_t>(courier->self().ranks));
  std::iota(gpus.begin(), gpus.end(), courier->self().first_rank);
  nccl::run_ranks(*courier, gpus, options, body);
}

}  // namespace

std::unique_ptr<Backend> make_queued_backend() {
  return std::make_unique<QueuedBackend>();
}

void run_nccl(const NcclRun& run, const std::function<void(NcclRank&)>& body) {
  const nccl::NcclOptions options{
      .timeout_s = run.timeout_s, .poll_s = kPoll, .message_axes = {"world", "pp", "pair"}, .calls_at_one = true};
  const auto on_rank = [&](Communicator& world) {
    QueuedBackend backend;
    backend.after_reads([&] { world.check_alive(); });
    Stream stream(backend.compute_stream());
    NcclRank rank{world, backend, stream};
    body(rank);
  };
  if (!run.strangers) return run_worlds(run.ranks, run.courier, options, on_rank);
  run_ranks(run.ranks, {.timeout_s = 2 * run.timeout_s}, [&](Communicator& host) {
    const auto world = nccl::make_communicator(host.split("world", [](int) { return 0; }), host.rank(), options);
    on_rank(*world);
  });
}

void run_nccl_ranks(int ranks, Courier* courier, double timeout_s, const std::function<void(Communicator&)>& body) {
  run_worlds(ranks, courier, {.timeout_s = timeout_s, .poll_s = kPoll}, body);
}

int64_t nccl_identities() {
  return queued::identities();
}

}  // namespace sluice::emulation
