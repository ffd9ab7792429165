// The processes of a job, connected, as each of them sees them.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "comm/mpi/mpi.h"
#include "comm/processes/courier.h"
#include "launch/binding.h"
#include "launch/identity.h"

namespace sluice::launch {

class Processes {
 public:
  struct Job {
    int ranks = 1;  // of the world
    // What has to be the same everywhere, with its name: ("version", "0.6.1").
    std::vector<std::pair<std::string, std::string>> common;
    double timeout_s = 600;  // how long one is waited for that comes, or says nothing
  };
  // Waits for the others: by MPI where the launcher's has it, else by sockets at the identity's master. User error
  // where they do not fit together, runtime error that names who is missing.
  Processes(const Identity& identity, const Environment& environment, const Job& job);
  ~Processes();
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;
  Processes(Processes&&) = delete;
  Processes& operator=(Processes&&) = delete;

  Courier& courier() const { return *courier_; }
  int first_rank() const { return courier_->self().first_rank; }
  // Whether rank 0 is of this process, which then prints and writes.
  bool first() const { return first_rank() == 0; }
  // The text that the first process has given here, in all of them. All call it.
  std::string from_first(const std::string& text) const;
  // Of each process, in their order.
  const std::vector<Place>& places() const { return places_; }
  // How many processes may use the very processors that this one may use, itself among them.
  int sharing() const;

 private:
  std::unique_ptr<mpi::Session> mpi_;  // outlives the wire; null where sockets connect
  std::unique_ptr<Courier> courier_;
  std::vector<Place> places_;
};

}  // namespace sluice::launch
