// Channels: the communicators of NCCL that a rank has. Groups of the same ranks share one, for each takes hundreds of
// MiB of a GPU: the world and a data-parallel axis that spans it are one to NCCL. Only what a block waits for at once
// (expert and pipeline axes) never shares with what comes in time anyway (parameters, gradients): calls of one channel
// run one after the other. They last as long as the rank's communicators; all ranks end them in the same order.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "comm/nccl/channel.h"

namespace sluice::nccl {

class Channels {
 public:
  explicit Channels(std::shared_ptr<Rank> rank) : rank_(std::move(rank)) {}
  ~Channels();
  Channels(const Channels&) = delete;
  Channels& operator=(const Channels&) = delete;

  const std::shared_ptr<Rank>& rank() const { return rank_; }
  // That of the bootstrap's ranks, all of which call this at the same time. `path` names the group; `made` says whether
  // it is new.
  Channel& of(Communicator& bootstrap, const std::string& path, bool& made);

 private:
  std::shared_ptr<Rank> rank_;
  std::vector<std::unique_ptr<Channel>> list_;
};

}  // namespace sluice::nccl
