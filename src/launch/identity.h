// Who this process is among those that run together: what it was told, or what the launcher that started it has put
// into its environment. Reading it changes nothing and needs no other process.
#pragma once

#include <optional>
#include <string>

#include "launch/environment.h"

namespace sluice::launch {

// In the order in which they are asked: the first that says anything is taken.
enum class Source {
  flags,     // the command line
  torchrun,  // RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE: torchrun's names, and those of `sluice launch`
  mpi,       // OMPI_COMM_WORLD_*: mpirun of Open MPI
  slurm,     // SLURM_PROCID and what else srun gives the tasks of a step
  alone,
};

struct Identity {
  int process = 0;
  int processes = 1;
  // Among the processes of this host. Read, never computed: launchers place processes as they like, srun four tasks on
  // two hosts as three and one.
  int local_process = 0;
  int local_processes = 1;
  Source source = Source::alone;
  // Where process 0 is, if it was said. Of several processes it always was, unless MPI can bring them together.
  std::optional<Address> master;
  // Whether MPI_Init finds the others: mpirun's, or srun's with PMIx.
  bool by_mpi = false;
  // For messages: "mpirun (OMPI_COMM_WORLD_RANK)".
  std::string launcher;
  // One line where another launcher says something else, so that nobody has to guess which was taken; else empty.
  std::string disagreement;
};

// What the command line says of it.
struct IdentityFlags {
  std::optional<int> process, processes, local_process, local_processes;
  std::optional<std::string> master;  // HOST:PORT, or HOST
};

// User error where what is said is not whole or cannot be, with what is set, what is missing and what to do. A shell or
// a script within an allocation of Slurm is alone: its processes are those of a step.
Identity identify(const IdentityFlags& flags, const Environment& environment);

// What `sluice launch` asks: the launcher that has started several processes, this one among them; empty where none
// has, or none that can be read.
std::optional<Identity> started_by_launcher(const Environment& environment);

// Whether a launcher calls this process another than the first, though what it says may not be whole.
bool follows_another(const Environment& environment);

// How many of the run's ranks each process has. User error where they cannot be spread equally.
int ranks_of_each(const Identity& identity, int ranks);

}  // namespace sluice::launch
