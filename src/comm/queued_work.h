// Collectives that a worker does while their caller goes on.
#pragma once

#include <future>

#include "comm/job.h"
#include "comm/worker.h"

namespace sluice {

// Submits `task`, which does `call` for this rank of the world. The Work that is returned ends with that of the task.
// Dropped, it ends the job first, so that the worker comes out of its wait and the buffers are free when the Work is
// gone.
Work queue_work(Worker& worker, Job& job, int rank, const CallName& call, std::packaged_task<Work()> task);

}  // namespace sluice
