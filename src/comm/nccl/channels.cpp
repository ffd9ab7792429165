#include "comm/nccl/channels.h"

#include <algorithm>

#include "comm/nccl/messages.h"

namespace sluice::nccl {

Channels::~Channels() {
  while (!list_.empty()) list_.pop_back();
}

Channel& Channels::of(Communicator& bootstrap, const std::string& path, bool& made) {
  const std::vector<std::string>& axes = rank_->options().urgent_axes;
  const bool urgent = std::find(axes.begin(), axes.end(), bootstrap.axis()) != axes.end();
  for (const std::unique_ptr<Channel>& channel : list_) {
    if (channel->urgent() != urgent || channel->members() != bootstrap.members()) continue;
    channel->also_of(bootstrap.axis());
    made = false;
    return *channel;
  }
  ncclUniqueId id{};
  if (bootstrap.rank() == 0) id = make_id(*rank_);
  Stream host;
  bootstrap.broadcast(host, Tensor(&id, {static_cast<int64_t>(sizeof(id))}, DType::u8), 0, "NCCL's identity")
      .wait(host);
  made = true;
  return *list_.emplace_back(std::make_unique<Channel>(
      rank_, ChannelSpec{path, bootstrap.axis(), bootstrap.members(), bootstrap.rank(), urgent}, id));
}

}  // namespace sluice::nccl
