// NCCL, and RAII for what its calls need of CUDA. Everything of this folder is in namespace sluice::nccl and touches
// both through this header, so that tests can carry it out between threads (tests/emulation/nccl).
#pragma once

#include <nccl.h>

#include "device/cuda/api.h"

namespace sluice::nccl {

// Without timing. Recording and querying are the owner's business: see Call.
class Event {
 public:
  Event() { cuda::check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(cudaStream_t stream) { cuda::check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  // `stream` goes on when what was recorded last has come.
  void hold(cudaStream_t stream) const { cuda::check(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent"); }
  cudaError_t query() const { return cudaEventQuery(event_); }

 private:
  cudaEvent_t event_ = nullptr;
};

// Runs beside the compute stream; an urgent one before it where both have work.
class CommStream {
 public:
  explicit CommStream(bool urgent) {
    int least = 0;
    int greatest = 0;
    cuda::check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    cuda::check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, urgent ? greatest : least),
                "cudaStreamCreate");
  }
  ~CommStream() { cudaStreamDestroy(stream_); }
  CommStream(const CommStream&) = delete;
  CommStream& operator=(const CommStream&) = delete;

  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// A few bytes of the GPU that nobody looks at: the operand of a barrier or of a first message.
class Token {
 public:
  static constexpr size_t kBytes = 256;
  Token() { cuda::check(cudaMalloc(&data_, kBytes), "cudaMalloc"); }
  ~Token() { cudaFree(data_); }
  Token(const Token&) = delete;
  Token& operator=(const Token&) = delete;

  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

}  // namespace sluice::nccl
