#include "comm/queued_work.h"

#include <memory>
#include <utility>

namespace sluice {
namespace {

class QueuedWork final : public Work::Pending {
 public:
  QueuedWork(Job& job, int rank, CallName call, std::future<Work> result)
      : job_(job), rank_(rank), call_(std::move(call)), result_(std::move(result)) {}
  ~QueuedWork() override {
    if (!result_.valid()) return;
    job_.dropped(rank_, call_, unwinding_());
    result_.wait();
  }
  void wait(Stream& stream) override { result_.get().wait(stream); }

 private:
  Job& job_;
  int rank_;
  CallName call_;
  std::future<Work> result_;
  UnwindingSince unwinding_;
};

}  // namespace

Work queue_work(Worker& worker, Job& job, int rank, const CallName& call, std::packaged_task<Work()> task) {
  return Work(std::make_unique<QueuedWork>(job, rank, call, worker.submit(std::move(task))));
}

}  // namespace sluice
