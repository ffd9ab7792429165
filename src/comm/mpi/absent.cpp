#include "base/error.h"
#include "comm/mpi/mpi.h"

namespace sluice::mpi {

bool available() {
  return false;
}

std::string version() {
  return {};
}

std::unique_ptr<Session> start(const Launched& /*launched*/) {
  throw user_error("sluice was built without MPI").advise("install libopenmpi-dev and openmpi-bin, and build again");
}

}  // namespace sluice::mpi
