#include <algorithm>

#include "comm/cuda/cuda_mover.h"
#include "device/cuda/api.h"
#include "device/cuda/kernel.h"

namespace sluice::cuda {

namespace {

constexpr int kThreads = 256;
// Enough for a copy in memory; the rest of the GPU is for the compute streams.
constexpr int kReduceBlocks = 256;

cudaStream_t native(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

class EventMark final : public Mark {
 public:
  explicit EventMark(cudaStream_t stream) {
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate");
    check(cudaEventRecord(event_, stream), "cudaEventRecord");
  }
  ~EventMark() override { cudaEventDestroy(event_); }
  EventMark(const EventMark&) = delete;
  EventMark& operator=(const EventMark&) = delete;
  cudaEvent_t event() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

// Addresses of the ranks' buffers, in rank order; a kernel's parameter.
template <class T>
struct Buffers {
  T* at[kMostReducedRanks];
  int count;
};

// What a sum of T is kept in.
template <class T>
struct SumOf {
  using type = T;
};
template <>
struct SumOf<bf16> {
  using type = float;
};

template <class T>
__global__ void __launch_bounds__(kThreads) reduce_ranks(Buffers<T> out, Buffers<const T> in, int64_t n, bool max) {
  using Sum = typename SumOf<T>::type;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < n; i += int64_t{gridDim.x} * kThreads) {
    Sum sum = static_cast<Sum>(in.at[0][i]);
    for (int r = 1; r < in.count; ++r) {
      const Sum x = static_cast<Sum>(in.at[r][i]);
      if (max) {
        sum = x > sum || x != x ? x : sum;
      } else {
        sum += x;
      }
    }
    for (int r = 0; r < out.count; ++r) out.at[r][i] = static_cast<T>(sum);
  }
}

template <class T, class P>
Buffers<T> buffers(std::span<P* const> list) {
  require(std::ssize(list) <= kMostReducedRanks, "{} ranks of a group on one GPU, at most {}", list.size(),
          kMostReducedRanks);
  Buffers<T> result{};
  result.count = static_cast<int>(list.size());
  std::transform(list.begin(), list.end(), result.at, [](P* p) { return static_cast<T*>(p); });
  return result;
}

class CudaMover final : public Mover {
 public:
  explicit CudaMover(int ordinal) : ordinal_(ordinal) {}
  ~CudaMover() override {
    if (!made_) return;
    cudaSetDevice(ordinal_);
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }

  MarkPtr mark(const Stream& stream) override {
    use();
    return std::make_shared<EventMark>(native(stream));
  }
  MarkPtr mark() override { return std::make_shared<EventMark>(stream()); }
  void wait(const MarkPtr& mark) override { hold_back(stream(), mark); }
  void hold(Stream& stream, const MarkPtr& mark) override {
    use();
    hold_back(native(stream), mark);
  }
  void copy(void* to, const void* from, size_t bytes) override { put_copy(stream(), to, from, bytes); }
  void copy_on(Stream& stream, void* to, const void* from, size_t bytes) override {
    use();
    put_copy(native(stream), to, from, bytes);
  }

  void reduce(DType dtype, ReduceOp op, std::span<void* const> out, std::span<const void* const> in,
              int64_t n) override {
    const auto run = [&]<class T>(T) {
      launch("the sum over ranks", reduce_ranks<T>, blocks(std::min<int64_t>(ceil_div(n, kThreads), kReduceBlocks)),
             kThreads, 0, stream(), buffers<T>(out), buffers<const T>(in), n, op == ReduceOp::max);
    };
    if (dtype == DType::i64) return run(int64_t{});
    if (dtype == DType::i32) return run(int32_t{});
    dispatch_float(dtype, run);
  }

 private:
  void use() const { check(cudaSetDevice(ordinal_), "choosing the GPU"); }

  // Made when it is first needed: most axes of a layout have one rank and move nothing.
  cudaStream_t stream() {
    use();
    if (!made_) {
      int least = 0, greatest = 0;
      check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
      // Ahead of compute: what is moved is waited for.
      check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "cudaStreamCreate");
      made_ = true;
    }
    return stream_;
  }

  static void hold_back(cudaStream_t stream, const MarkPtr& mark) {
    if (mark) check(cudaStreamWaitEvent(stream, static_cast<const EventMark&>(*mark).event()), "cudaStreamWaitEvent");
  }
  static void put_copy(cudaStream_t stream, void* to, const void* from, size_t bytes) {
    if (bytes > 0 && to != from) {
      check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream), "copying between ranks");
    }
  }

  int ordinal_;
  bool made_ = false;
  cudaStream_t stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Mover> make_mover(int ordinal) {
  return std::make_unique<CudaMover>(ordinal);
}

}  // namespace sluice::cuda
