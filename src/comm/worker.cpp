#include "comm/worker.h"

#include "base/log.h"

namespace sluice {

Worker::Worker(int rank, int world)
    : thread_([this, rank, world] {
        const log::RankScope scope(rank, world);
        loop();
      }) {}

Worker::~Worker() {
  {
    const std::lock_guard guard(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::future<Work> Worker::submit(std::packaged_task<Work()> task) {
  std::future<Work> result = task.get_future();
  {
    const std::lock_guard guard(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
  return result;
}

bool Worker::idle() const {
  const std::lock_guard guard(mutex_);
  return tasks_.empty() && !busy_;
}

void Worker::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !tasks_.empty(); });
    if (tasks_.empty()) return;
    std::packaged_task<Work()> task = std::move(tasks_.front());
    tasks_.pop_front();
    busy_ = true;
    lock.unlock();
    task();
    task = {};
    lock.lock();
    busy_ = false;
  }
}

}  // namespace sluice
