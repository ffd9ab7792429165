// NcclCommunicator: the collectives of a group as NCCL's calls. A channel of the group's ranks carries its collectives
// (channels.h); messages have channels of their own (messages.h).
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "comm/nccl/channels.h"
#include "comm/nccl/messages.h"

namespace sluice::nccl {

class NcclCommunicator final : public Communicator {
 public:
  // All ranks of `bootstrap` call this at the same time. `path` names the group among those of the job.
  NcclCommunicator(std::shared_ptr<Channels> channels, std::unique_ptr<Communicator> bootstrap, std::string path);

  bool real() const override { return true; }
  KernelSet transport() const override { return Kernel::nccl; }
  void check_alive() const override { rank_->check(); }

 private:
  Work do_all_gather(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) override;
  Work do_reduce_scatter(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) override;
  Work do_all_reduce(Stream& after, const Tensor& data, ReduceOp op, std::string_view what) override;
  Work do_all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                       std::span<const int64_t> in_counts, std::string_view what) override;
  Work do_broadcast(Stream& after, const Tensor& data, int root, std::string_view what) override;
  Work do_send(Stream& after, const Tensor& data, int to, int tag, std::string_view what) override;
  Work do_recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what) override;
  void do_barrier(Stream& stream, std::string_view what) override;
  void copy_local(Stream& after, const Tensor& out, const Tensor& in) override;
  bool alone() const override { return size() == 1 && !rank_->options().calls_at_one; }
  std::unique_ptr<Communicator> do_split(std::string axis, std::vector<int> members, int rank) override;

  Entry entry(Collective kind, std::string_view what, std::string terms) const;
  template <class Enqueue>
  Work issue(Stream& after, Entry entry, const char* function, Enqueue&& enqueue);
  void meet(cudaStream_t after, std::string_view what);
  void meet_in_pairs();
  Channel& channel();
  Messages& messages(Collective kind, int peer, std::string_view what);

  std::shared_ptr<Channels> channels_;
  std::shared_ptr<Rank> rank_;
  std::unique_ptr<Communicator> bootstrap_;
  std::string path_;
  int splits_ = 0;
  // One of channels_; null where the group is alone, and where nothing but messages was asked for yet.
  Channel* channel_ = nullptr;
  std::optional<Messages> messages_;  // on axes that have them
};

}  // namespace sluice::nccl
