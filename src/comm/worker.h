// Worker: a thread that runs jobs in the order they were submitted.
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "comm/communicator.h"

namespace sluice {

class Worker {
 public:
  explicit Worker(int rank, int world);
  // Returns when the submitted jobs have run.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  std::future<Work> submit(std::packaged_task<Work()> task);
  bool idle() const;

 private:
  void loop();

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<Work()>> tasks_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace sluice
