// Device: one rank's share of a GPU: its compute stream, staging memory, faults, and the libraries' handles. Ranks of a
// process may share a GPU, each with a Device of its own; a Device is used by one thread at a time.
#pragma once

#include <cstddef>
#include <memory>

#include "device/cuda/api.h"
#include "device/cuda/fault.h"

namespace sluice::cuda {

class Matmul;          // matmul.h: cuBLASLt
class AttentionPlans;  // attention_plans.h: cuDNN

class Device {
 public:
  explicit Device(int ordinal);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  int ordinal() const { return ordinal_; }
  cudaStream_t stream() const { return stream_; }
  int num_sms() const { return num_sms_; }
  // Device address of the fault record.
  Fault* fault() const { return fault_; }
  // Made at the first call.
  Matmul& matmul();
  AttentionPlans& attention_plans();

  // Makes the GPU that of the calling thread.
  void use() const;
  // Copies in stream order. to_host returns when the bytes are there, and throws what kernels reported until then;
  // to_device returns when `from` may change (it goes through pinned memory).
  void to_host(void* to, const void* from, size_t bytes);
  void to_device(void* to, const void* from, size_t bytes);
  // Waits for the stream and throws what kernels reported.
  void synchronize();

 private:
  struct Staging;
  void throw_fault();

  int ordinal_;
  int num_sms_ = 0;
  cudaStream_t stream_ = nullptr;
  Fault* fault_ = nullptr;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Matmul> matmul_;
  std::unique_ptr<AttentionPlans> attention_plans_;
};

}  // namespace sluice::cuda
