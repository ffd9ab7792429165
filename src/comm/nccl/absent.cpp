#include "comm/nccl/nccl.h"

namespace sluice::nccl {

namespace {

[[noreturn]] void refuse() {
  throw user_error("sluice was built without NCCL")
      .advise(
          "install NCCL (nccl.h and libnccl beside the CUDA toolkit, or PyPI's nvidia-nccl-cu13), then configure and "
          "build again");
}

}  // namespace

bool available() {
  return false;
}

std::string version() {
  return {};
}

std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Communicator> /*bootstrap*/, int /*gpu*/,
                                                const NcclOptions& /*options*/) {
  refuse();
}

void run_ranks(int /*ranks*/, const NcclOptions& /*options*/,
               const std::function<void(Communicator& world)>& /*body*/) {
  refuse();
}

void run_ranks(Courier& /*courier*/, const std::vector<int>& /*gpus*/, const NcclOptions& /*options*/,
               const std::function<void(Communicator& world)>& /*body*/) {
  refuse();
}

}  // namespace sluice::nccl
