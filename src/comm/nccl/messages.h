// Messages: channels to the neighbours on the ring of a group's ranks, the only peers that a pipeline has. Each
// direction has two, one for even and one for odd tags: what the one carries need not be taken in the order of the
// other, as the activations and gradients that two stages send the same way. A kernel of NCCL that sends waits on its
// stream until the receiver's runs; with streams of their own, messages of different channels never wait behind each
// other. All are connected when the group is made, because a first message would keep the host until its peer had
// issued it too.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "comm/nccl/channel.h"

namespace sluice::nccl {

class Messages {
 public:
  // All ranks of the bootstrap call this at the same time. `path` names the group.
  Messages(const std::shared_ptr<Rank>& rank, Communicator& bootstrap, const std::string& axis,
           const std::string& path);

  bool reaches(int peer) const { return channels_.contains({self_, peer, 0}); }
  CallPtr send(cudaStream_t after, Entry entry, const void* data, size_t bytes, int to, int tag);
  CallPtr recv(cudaStream_t after, Entry entry, void* data, size_t bytes, int from, int tag);

 private:
  using Key = std::tuple<int, int, int>;  // sender and receiver as numbered in the group, parity of tags
  Channel& channel(int from, int to, int tag) { return *channels_.at({from, to, tag & 1}); }

  int self_;
  std::vector<std::unique_ptr<Token>> tokens_;  // of the first messages; the channels end before them
  std::map<Key, std::unique_ptr<Channel>> channels_;
};

// What the ranks of a communicator of NCCL have in common; the one that makes it listens until all are connected.
ncclUniqueId make_id(const Rank& rank);

}  // namespace sluice::nccl
