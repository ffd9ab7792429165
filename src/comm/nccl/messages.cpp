#include "comm/nccl/messages.h"

#include <vector>

namespace sluice::nccl {

namespace {

// Every (sender, receiver, parity) of a ring of `size` ranks, in the one order in which all ranks go through theirs.
std::vector<std::tuple<int, int, int>> ring_of(int size) {
  std::vector<std::tuple<int, int, int>> ring;
  for (int from = 0; from < size; ++from) {
    for (const int to : neighbours_on_ring(from, size)) {
      for (int parity = 0; parity < kMessageParities; ++parity) ring.emplace_back(from, to, parity);
    }
  }
  return ring;
}

}  // namespace

ncclUniqueId make_id(const Rank& rank) {
  ncclUniqueId id{};
  const ncclResult_t result = ncclGetUniqueId(&id);
  if (result != ncclSuccess) {
    throw runtime_failure("rank {}: ncclGetUniqueId: {}", rank.world_rank(), ncclGetErrorString(result));
  }
  return id;
}

Messages::Messages(const std::shared_ptr<Rank>& rank, Communicator& bootstrap, const std::string& axis,
                   const std::string& path)
    : self_(bootstrap.rank()) {
  const auto ring = ring_of(bootstrap.size());
  // The sender makes an identity. The ring has equally many of each sender, one after the other.
  const size_t each = ring.size() / static_cast<size_t>(bootstrap.size());
  std::vector<ncclUniqueId> mine;
  for (size_t i = 0; i < each; ++i) mine.push_back(make_id(*rank));
  std::vector<ncclUniqueId> all(ring.size());
  const auto bytes_of = [](std::vector<ncclUniqueId>& ids) {
    return Tensor(ids.data(), {static_cast<int64_t>(ids.size() * sizeof(ncclUniqueId))}, DType::u8);
  };
  Stream host;
  bootstrap.all_gather(host, bytes_of(all), bytes_of(mine), "identities of message channels").wait(host);

  std::vector<CallPtr> first;
  for (size_t i = 0; i < ring.size(); ++i) {
    const auto [from, to, parity] = ring[i];
    if (from != self_ && to != self_) continue;
    const int sender = bootstrap.members()[static_cast<size_t>(from)];
    const int receiver = bootstrap.members()[static_cast<size_t>(to)];
    channels_[ring[i]] =
        std::make_unique<Channel>(rank,
                                  ChannelSpec{.name = fmt::format("{}:{}>{}.{}", path, sender, receiver, parity),
                                              .axis = axis,
                                              .members = {sender, receiver},
                                              .self = from == self_ ? 0 : 1,
                                              .urgent = true,
                                              .most_blocks = kMessageBlocks},
                                  all[i]);
    void* token = tokens_.emplace_back(std::make_unique<Token>())->get();
    const CallName call{from == self_ ? Collective::send : Collective::recv, axis, "a first message"};
    first.push_back(from == self_ ? send(nullptr, {call, "first", {}, {}}, token, Token::kBytes, to, parity)
                                  : recv(nullptr, {call, "first", {}, {}}, token, Token::kBytes, from, parity));
  }
  for (const CallPtr& call : first) rank->await(*call);
}

CallPtr Messages::send(cudaStream_t after, Entry entry, const void* data, size_t bytes, int to, int tag) {
  return channel(self_, to, tag).issue(after, std::move(entry), "ncclSend", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclSend(data, bytes, ncclUint8, 1, comm, stream);
  });
}

CallPtr Messages::recv(cudaStream_t after, Entry entry, void* data, size_t bytes, int from, int tag) {
  return channel(from, self_, tag)
      .issue(after, std::move(entry), "ncclRecv",
             [&](ncclComm_t comm, cudaStream_t stream) { return ncclRecv(data, bytes, ncclUint8, 0, comm, stream); });
}

}  // namespace sluice::nccl
