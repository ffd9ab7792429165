// NCCL as the rest of the program sees it: without its headers or CUDA's, and there to be called in every build. Ranks
// own one GPU each and are threads of this process or of several: what they must agree on before NCCL can carry
// anything goes between their hosts, by the transport of the bootstrap.
// Where it differs from what communicator.h lets one hope for:
// - Sums are added in an order of NCCL's choice, which depends on sizes and topology, not in rank order. The same call
//   on the same machines gives the same bits.
// - Maxima are of integers; NCCL's would lose a NaN.
// - Messages go between neighbours on the ring of a group's ranks, on the axes of `message_axes`: each direction has
//   communicators of its own, made with the group, so that no send waits behind a receive or another pair's message.
// - Messages from one rank to another with even tags arrive in the order they were issued, whatever the tags, and so do
//   those with odd ones: the receiver issues in that order too.
// - Calls that do not fit together are named at once where both ranks are of one process. Between processes NCCL hangs
//   or moves the wrong bytes; a wait ends with the time-out, which says what the ranks elsewhere were in.
// - Neither a call nor Work::wait blocks the host, but for the first of a kind on a group, which connects its ranks,
// and
//   barrier, which returns when all ranks' streams have come to it. A collective that fails later is found by a
//   watchdog: it aborts this rank's communicators, and every later call and check_alive() throws what it found. Hand
//   check_alive to Backend::after_reads, so that no value is believed that an aborted collective left behind.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace sluice {
class Courier;
}

namespace sluice::nccl {

struct NcclOptions {
  // Of a collective, from its turn on its stream to its end.
  double timeout_s = 600;
  // How often the watchdog looks.
  double poll_s = 0.05;
  std::vector<std::string> message_axes = {"pp"};
  // Groups on these connect every pair of their ranks when they are made, so that the first all-to-all takes no memory.
  std::vector<std::string> exchange_axes = {"ep"};
  // Before the compute stream: what a block waits for at once. Parameters and gradients come in time anyway.
  std::vector<std::string> urgent_axes = {"ep", "pp", "tp", "cp"};
  // Give groups of one to NCCL too, so that one GPU can test it.
  bool calls_at_one = false;
};

// Messages of a group go between these alone, by a communicator for each sender, receiver and parity of tags, with as
// many blocks at most: a message is large and alone on its way, and more would only take memory and SMs.
inline constexpr int kMessageParities = 2;
inline constexpr int kMessageBlocks = 8;
inline std::vector<int> neighbours_on_ring(int rank, int size) {
  std::vector<int> ranks = {(rank + 1) % size};
  if (size > 2) ranks.push_back((rank + size - 1) % size);
  return ranks;
}

// Whether it was built with NCCL; then version() is "NCCL 2.28.9", else empty.
bool available();
std::string version();

// The communicator of the bootstrap's ranks, of which this one has the GPU `gpu`. Groups split from it split the
// bootstrap too. All ranks call this at the same time.
std::unique_ptr<Communicator> make_communicator(std::unique_ptr<Communicator> bootstrap, int gpu,
                                                const NcclOptions& options);

// Runs `body` on `ranks` threads like sluice::run_ranks, rank r on GPU r. Calls that do not fit together are named as
// there. A user error where there are fewer GPUs than ranks, or no NCCL.
void run_ranks(int ranks, const NcclOptions& options, const std::function<void(Communicator& world)>& body);

// Runs `body` on a thread for each rank of this process, the i-th of which has the GPU gpus[i], with the ranks of the
// courier's other processes, like sluice::run_ranks of processes: whatever fails anywhere, or a process that ends, ends
// all within the time-out, collectives on GPUs too.
void run_ranks(Courier& courier, const std::vector<int>& gpus, const NcclOptions& options,
               const std::function<void(Communicator& world)>& body);

}  // namespace sluice::nccl
