#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "device/cuda/api.h"

namespace sluice::emulation::queued {

// A point in a stream.
struct Mark {
  std::mutex mutex;
  std::condition_variable changed;
  bool reached = false;

  void reach() {
    const std::lock_guard guard(mutex);
    reached = true;
    changed.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return reached; });
  }
  bool has_come() {
    const std::lock_guard guard(mutex);
    return reached;
  }
};

struct Event {
  std::mutex mutex;
  std::shared_ptr<Mark> last;

  std::shared_ptr<Mark> mark() {
    const std::lock_guard guard(mutex);
    return last;
  }
};

class Queue {
 public:
  Queue() : thread_([this] { loop(); }) {}
  ~Queue() {
    {
      const std::lock_guard guard(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  void put(std::function<void()> task) {
    {
      const std::lock_guard guard(mutex_);
      tasks_.push_back(std::move(task));
    }
    changed_.notify_all();
  }

 private:
  void loop() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      task = {};
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::thread thread_;
};

void enqueue(cudaStream_t stream, std::function<void()> task) {
  if (stream != nullptr) {
    stream->put(std::move(task));
  } else {
    task();
  }
}

const char* cudaGetErrorName(cudaError_t /*status*/) {
  return "cudaError";
}
const char* cudaGetErrorString(cudaError_t /*status*/) {
  return "refused by the emulation";
}
cudaError_t cudaGetDeviceCount(int* count) {
  return *count = 8, cudaSuccess;
}
cudaError_t cudaSetDevice(int /*device*/) {
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** data, size_t bytes) {
  return *data = std::calloc(1, bytes), cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  return std::free(data), cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind /*kind*/, cudaStream_t stream) {
  enqueue(stream, [=] {
    if (bytes > 0) std::memmove(to, from, bytes);
  });
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned /*flags*/, int /*priority*/) {
  return *stream = new Queue, cudaSuccess;
}
// The real one returns at once and does what is on the stream; here that is done when the call returns.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const auto mark = std::make_shared<Mark>();
  enqueue(stream, [mark] { mark->reach(); });
  mark->wait();
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  const std::shared_ptr<Mark> mark = event->mark();
  if (mark) enqueue(stream, [mark] { mark->wait(); });
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
  return *event = new Event, cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  const auto mark = std::make_shared<Mark>();
  {
    const std::lock_guard guard(event->mutex);
    event->last = mark;
  }
  enqueue(stream, [mark] { mark->reach(); });
  return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::shared_ptr<Mark> mark = event->mark();
  return !mark || mark->has_come() ? cudaSuccess : cudaErrorNotReady;
}

}  // namespace sluice::emulation::queued

namespace sluice::cuda {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) throw runtime_failure("{}: {}", what, cudaGetErrorString(status));
}

}  // namespace sluice::cuda
