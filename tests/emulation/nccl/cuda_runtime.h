// The part of the CUDA runtime that src/comm/nccl uses, carried out on the CPU: this folder stands before the toolkit
// on the include path of the library `sluice_nccl_emulated`. Device memory is host memory. A stream is a thread that
// does what is put on it one after the other, so a missing wait is a race that ThreadSanitizer sees. The null stream is
// the calling thread. The names live in a namespace, since one program has this runtime, the synchronous one of the
// kernels' emulation and the real one.
#pragma once

#include <cstddef>
#include <functional>

namespace sluice::emulation::queued {

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorNotReady = 600 };
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
inline constexpr unsigned cudaStreamNonBlocking = 1;
inline constexpr unsigned cudaEventDisableTiming = 2;

class Queue;
struct Event;
using cudaStream_t = Queue*;
using cudaEvent_t = Event*;

const char* cudaGetErrorName(cudaError_t status);
const char* cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMalloc(void** data, size_t bytes);
cudaError_t cudaFree(void* data);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventQuery(cudaEvent_t event);

// Puts `task` on the stream.
void enqueue(cudaStream_t stream, std::function<void()> task);

}  // namespace sluice::emulation::queued

using namespace sluice::emulation::queued;  // NOLINT(google-global-names-in-headers)
