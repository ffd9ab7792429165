#include "device/cuda/device.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "device/cuda/attention_plans.h"
#include "device/cuda/matmul.h"

namespace sluice::cuda {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw runtime_failure("{}: {}: {}", what, cudaGetErrorName(status), cudaGetErrorString(status));
}

namespace {

std::string describe(const Fault& fault) {
  const auto outside = [&](const char* what) {
    return fmt::format("{} {} is not in [0, {})", what, fault.value, fault.bound);
  };
  switch (static_cast<FaultKind>(fault.kind)) {
    case FaultKind::expert:
      return outside("expert");
    case FaultKind::row:
      return outside("row");
    case FaultKind::token:
      return outside("token");
    case FaultKind::label:
      return outside("label");
    case FaultKind::index:
      return outside("index");
    case FaultKind::offset:
      return fmt::format("offset {} decreases, or is not in [0, {}]", fault.value, fault.bound);
    case FaultKind::expert_rows:
      return fmt::format("expert_sort: more than {} expert rows", fault.bound);
    case FaultKind::none:
      break;
  }
  return fmt::format("kind {}, value {}, bound {}", fault.kind, fault.value, fault.bound);
}

}  // namespace

// Pinned buffers that copies to the device go through in turn: one is filled while the others are on their way.
struct Device::Staging {
  struct Slot {
    void* data = nullptr;
    size_t size = 0;
    cudaEvent_t copied = nullptr;
  };
  std::array<Slot, 4> slots;
  size_t next = 0;

  Staging() {
    for (Slot& slot : slots) check(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "cudaEventCreate");
  }
  ~Staging() {
    for (Slot& slot : slots) {
      cudaEventDestroy(slot.copied);
      if (slot.data != nullptr) cudaFreeHost(slot.data);
    }
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  // A buffer of at least `bytes` whose last copy has ended.
  Slot& take(size_t bytes) {
    Slot& slot = slots[next++ % slots.size()];
    check(cudaEventSynchronize(slot.copied), "waiting for a staged copy");
    if (slot.size < bytes) {
      if (slot.data != nullptr) check(cudaFreeHost(slot.data), "cudaFreeHost");
      slot.data = nullptr;
      slot.size = std::max(bytes, size_t{1} << 16);
      check(cudaHostAlloc(&slot.data, slot.size, 0), "cudaHostAlloc of a staging buffer");
    }
    return slot;
  }
};

Device::Device(int ordinal) : ordinal_(ordinal) {
  use();
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
  num_sms_ = properties.multiProcessorCount;
  check(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, 0), "cudaStreamCreate");
  void* fault = nullptr;
  check(cudaHostAlloc(&fault, sizeof(Fault), cudaHostAllocMapped), "cudaHostAlloc");
  fault_ = new (fault) Fault;
  staging_ = std::make_unique<Staging>();
}

Device::~Device() {
  cudaSetDevice(ordinal_);
  cudaStreamSynchronize(stream_);
  matmul_.reset();
  attention_plans_.reset();
  staging_.reset();
  cudaFreeHost(fault_);
  cudaStreamDestroy(stream_);
}

Matmul& Device::matmul() {
  if (!matmul_) matmul_ = std::make_unique<Matmul>(*this);
  return *matmul_;
}

AttentionPlans& Device::attention_plans() {
  if (!attention_plans_) attention_plans_ = std::make_unique<AttentionPlans>(*this);
  return *attention_plans_;
}

void Device::use() const {
  check(cudaSetDevice(ordinal_), "choosing the GPU");
}

void Device::to_host(void* to, const void* from, size_t bytes) {
  if (bytes > 0) {
    // Large reads are rare and go straight into the caller's memory.
    constexpr size_t kMostStaged = size_t{1} << 20;
    const bool staged = bytes <= kMostStaged;
    void* target = staged ? staging_->take(bytes).data : to;
    check(cudaMemcpyAsync(target, from, bytes, cudaMemcpyDeviceToHost, stream_), "copying to the host");
    synchronize();
    if (staged) std::memcpy(to, target, bytes);
  } else {
    synchronize();
  }
}

void Device::to_device(void* to, const void* from, size_t bytes) {
  if (bytes == 0) return;
  const Staging::Slot& slot = staging_->take(bytes);
  std::memcpy(slot.data, from, bytes);
  check(cudaMemcpyAsync(to, slot.data, bytes, cudaMemcpyHostToDevice, stream_), "copying to the GPU");
  check(cudaEventRecord(slot.copied, stream_), "cudaEventRecord");
}

void Device::synchronize() {
  check(cudaStreamSynchronize(stream_), "waiting for the GPU");
  throw_fault();
}

void Device::throw_fault() {
  if (fault_->kind == 0) return;
  const Fault fault = *fault_;
  *fault_ = Fault{};
  throw Error(ErrorKind::internal, describe(fault));
}

}  // namespace sluice::cuda
