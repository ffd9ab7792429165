// MPI as the rest of the program sees it: without its headers, and there to be called in every build. It connects the
// processes that mpirun or srun has started; what goes over the wire is the courier's (comm/processes).
//   After the connection only the courier's thread calls MPI, which has to allow that (MPI_THREAD_SERIALIZED).
// An error of MPI is an Error with MPI's text, or the loss of a process once the wire is at work. A process that dies
// is not seen by MPI: the launcher then ends the others.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/processes/members.h"
#include "comm/processes/wire.h"

namespace sluice::mpi {

// Whether it was built with MPI; then version() names the library, "Open MPI 4.1.4", else it is empty.
bool available();
std::string version();

// Open MPI's setting of how data go from process to process on a host: it is "none" unless the environment says
// otherwise.
inline constexpr const char* kSingleCopy = "OMPI_MCA_btl_vader_single_copy_mechanism";

// How the launcher has started this process, where it is known: 0 and -1 where it is not.
struct Launched {
  int process = -1;
  int processes = 0;
  // Of this host, and of each of them what computes or communicates at a time.
  int local_processes = 0;
  int threads = 1;
};

// MPI from MPI_Init to MPI_Finalize, which come once in a process's life. The object waits for the other processes when
// it ends, as MPI does. Where an exception unwinds, or a wire had to leave something under way, it waits a moment only:
// a process in which MPI is then not over ends all others when it exits, with MPI_Abort, after it has said why.
class Session {
 public:
  Session() = default;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  virtual ~Session() = default;

  virtual int process() const = 0;
  virtual int processes() const = 0;
  // A wire between all processes, which have to fit together (check_members) and are put into `members`. `self.process`
  // is process(). All processes call it at the same time; the session outlives the wire.
  virtual std::unique_ptr<Wire> connect(const Member& self, int world, std::vector<Member>& members) = 0;
};

// User error where MPI's world is not the launcher's: then the program and the launcher are not of the same MPI.
std::unique_ptr<Session> start(const Launched& launched);

}  // namespace sluice::mpi
