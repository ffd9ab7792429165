#include "comm/nccl/nccl_communicator.h"

#include <algorithm>

namespace sluice::nccl {

namespace {

// Types that NCCL only moves go as bytes.
ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return ncclFloat64;
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i64:
      return ncclInt64;
    case DType::i32:
      return ncclInt32;
    default:
      break;
  }
  require(false, "{} cannot be reduced by NCCL", name_of(dtype));
  return ncclUint8;
}

cudaStream_t native(const Stream& stream) {
  return static_cast<cudaStream_t>(stream.native());
}

std::string terms_of(DType dtype, int64_t elements) {
  return fmt::format("{} x {}", name_of(dtype), elements);
}

bool contains(const std::vector<std::string>& axes, const std::string& axis) {
  return std::find(axes.begin(), axes.end(), axis) != axes.end();
}

class NcclWork final : public Work::Pending {
 public:
  NcclWork(std::shared_ptr<Rank> rank, CallPtr call) : rank_(std::move(rank)), call_(std::move(call)) {}
  ~NcclWork() override {
    if (!waited_) rank_->dropped(*call_, unwinding_());
  }
  void wait(Stream& stream) override {
    // If it throws, the buffers must still outlast the call.
    rank_->check();
    call_->ended.hold(native(stream));
    waited_ = true;
  }

 private:
  std::shared_ptr<Rank> rank_;
  CallPtr call_;
  bool waited_ = false;
  UnwindingSince unwinding_;
};

}  // namespace

NcclCommunicator::NcclCommunicator(std::shared_ptr<Channels> channels, std::unique_ptr<Communicator> bootstrap,
                                   std::string path)
    : Communicator(bootstrap->axis(), bootstrap->members(), bootstrap->rank()),
      channels_(std::move(channels)),
      rank_(channels_->rank()),
      bootstrap_(std::move(bootstrap)),
      path_(std::move(path)) {
  if (NcclCommunicator::alone()) return;
  if (size() > 1 && contains(rank_->options().message_axes, axis())) {
    messages_.emplace(rank_, *bootstrap_, axis(), path_);
  } else {
    channel();
  }
}

// A pipeline has messages alone: its communicator for collectives would only take memory.
Channel& NcclCommunicator::channel() {
  if (channel_ == nullptr) {
    bool made = false;
    channel_ = &channels_->of(*bootstrap_, path_, made);
    if (made) meet(nullptr, "a first meeting");
    if (made && contains(rank_->options().exchange_axes, axis())) meet_in_pairs();
  }
  return *channel_;
}

Entry NcclCommunicator::entry(Collective kind, std::string_view what, std::string terms) const {
  return {name_call(kind, what), std::move(terms), {}, {}};
}

template <class Enqueue>
Work NcclCommunicator::issue(Stream& after, Entry entry, const char* function, Enqueue&& enqueue) {
  return Work(std::make_unique<NcclWork>(
      rank_, channel().issue(native(after), std::move(entry), function, std::forward<Enqueue>(enqueue))));
}

Work NcclCommunicator::do_all_gather(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) {
  return issue(after, entry(Collective::all_gather, what, terms_of(in.dtype(), in.numel())), "ncclAllGather",
               [&](ncclComm_t comm, cudaStream_t stream) {
                 return ncclAllGather(in.raw(), out.raw(), in.bytes(), ncclUint8, comm, stream);
               });
}

Work NcclCommunicator::do_reduce_scatter(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) {
  return issue(after, entry(Collective::reduce_scatter, what, terms_of(out.dtype(), out.numel())), "ncclReduceScatter",
               [&](ncclComm_t comm, cudaStream_t stream) {
                 return ncclReduceScatter(in.raw(), out.raw(), static_cast<size_t>(out.numel()), type_of(out.dtype()),
                                          ncclSum, comm, stream);
               });
}

Work NcclCommunicator::do_all_reduce(Stream& after, const Tensor& data, ReduceOp op, std::string_view what) {
  const bool sum = op == ReduceOp::sum;
  Entry entry =
      this->entry(Collective::all_reduce, what, terms_of(data.dtype(), data.numel()) + (sum ? ", sum" : ", max"));
  require(sum || !is_float(data.dtype()), "rank {}, {}: NCCL's maximum of {} loses NaNs", rank_->world_rank(),
          entry.call.str(), name_of(data.dtype()));
  return issue(after, std::move(entry), "ncclAllReduce", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(data.raw(), data.raw(), static_cast<size_t>(data.numel()), type_of(data.dtype()),
                         sum ? ncclSum : ncclMax, comm, stream);
  });
}

Work NcclCommunicator::do_all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts,
                                       const Tensor& in, std::span<const int64_t> in_counts, std::string_view what) {
  const Tensor& shaped = in.rank() > 0 ? in : out;
  Entry entry = this->entry(Collective::all_to_all_v, what, terms_of(in.dtype(), shaped.shape().inner()) + " a row");
  entry.in_counts.assign(in_counts.begin(), in_counts.end());
  entry.out_counts.assign(out_counts.begin(), out_counts.end());
  const auto row_bytes = static_cast<size_t>(shaped.shape().inner()) * size_of(in.dtype());
  return issue(after, std::move(entry), "an all-to-all of ncclSend and ncclRecv",
               [&](ncclComm_t comm, cudaStream_t stream) {
                 const auto* from = static_cast<const char*>(in.raw());
                 auto* to = static_cast<char*>(out.raw());
                 cudaError_t copied = cudaSuccess;
                 Grouped group;
                 for (int r = 0; r < size(); ++r) {
                   const size_t sent = static_cast<size_t>(in_counts[static_cast<size_t>(r)]) * row_bytes;
                   const size_t received = static_cast<size_t>(out_counts[static_cast<size_t>(r)]) * row_bytes;
                   if (r == rank()) {
                     if (sent > 0) copied = cudaMemcpyAsync(to, from, sent, cudaMemcpyDeviceToDevice, stream);
                   } else {
                     if (sent > 0) group.keep(ncclSend(from, sent, ncclUint8, r, comm, stream));
                     if (received > 0) group.keep(ncclRecv(to, received, ncclUint8, r, comm, stream));
                   }
                   from += sent;
                   to += received;
                 }
                 const ncclResult_t result = group.end();
                 cuda::check(copied, "copying a rank's own rows");
                 return result;
               });
}

Work NcclCommunicator::do_broadcast(Stream& after, const Tensor& data, int root, std::string_view what) {
  return issue(
      after, entry(Collective::broadcast, what, terms_of(data.dtype(), data.numel()) + fmt::format(", root {}", root)),
      "ncclBroadcast", [&](ncclComm_t comm, cudaStream_t stream) {
        return ncclBroadcast(data.raw(), data.raw(), data.bytes(), ncclUint8, root, comm, stream);
      });
}

Messages& NcclCommunicator::messages(Collective kind, int peer, std::string_view what) {
  require(messages_.has_value(), "rank {}, {}: axis {} is not one of the message_axes", rank_->world_rank(),
          CallName{kind, axis(), std::string(what)}.str(), axis());
  require(messages_->reaches(peer), "rank {}, {}: rank {} is no neighbour on the ring", rank_->world_rank(),
          CallName{kind, axis(), std::string(what)}.str(), members()[static_cast<size_t>(peer)]);
  return *messages_;
}

Work NcclCommunicator::do_send(Stream& after, const Tensor& data, int to, int tag, std::string_view what) {
  Messages& messages = this->messages(Collective::send, to, what);
  return Work(std::make_unique<NcclWork>(
      rank_,
      messages.send(native(after),
                    entry(Collective::send, what, terms_of(data.dtype(), data.numel()) + fmt::format(", tag {}", tag)),
                    data.raw(), data.bytes(), to, tag)));
}

Work NcclCommunicator::do_recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what) {
  Messages& messages = this->messages(Collective::recv, from, what);
  return Work(std::make_unique<NcclWork>(
      rank_,
      messages.recv(native(after),
                    entry(Collective::recv, what, terms_of(data.dtype(), data.numel()) + fmt::format(", tag {}", tag)),
                    data.raw(), data.bytes(), from, tag)));
}

// Its operand is a number that nobody looks at.
void NcclCommunicator::meet(cudaStream_t after, std::string_view what) {
  const CallPtr call = channel().issue(
      after, entry(Collective::barrier, what, {}), "ncclAllReduce", [&](ncclComm_t comm, cudaStream_t stream) {
        return ncclAllReduce(channel().token(), channel().token(), 1, ncclInt32, ncclMax, comm, stream);
      });
  rank_->await(*call);
}

void NcclCommunicator::meet_in_pairs() {
  void* const token = channel().token();
  const auto to_all = [&](ncclComm_t comm, cudaStream_t stream) {
    Grouped group;
    for (int r = 0; r < size(); ++r) {
      if (r == rank()) continue;
      group.keep(ncclSend(token, Token::kBytes, ncclUint8, r, comm, stream));
      group.keep(ncclRecv(token, Token::kBytes, ncclUint8, r, comm, stream));
    }
    return group.end();
  };
  const CallPtr call = channel().issue(nullptr, entry(Collective::all_to_all_v, "a first exchange", {}),
                                       "an all-to-all of ncclSend and ncclRecv", to_all);
  rank_->await(*call);
}

void NcclCommunicator::do_barrier(Stream& stream, std::string_view what) {
  meet(native(stream), what);
}

void NcclCommunicator::copy_local(Stream& after, const Tensor& out, const Tensor& in) {
  rank_->check();
  cuda::check(cudaMemcpyAsync(out.raw(), in.raw(), in.bytes(), cudaMemcpyDeviceToDevice, native(after)),
              "copying in a group of one");
}

std::unique_ptr<Communicator> NcclCommunicator::do_split(std::string axis, std::vector<int> members, int /*rank*/) {
  rank_->check();
  std::string path = fmt::format("{}/{}.{}:{}", path_, splits_++, axis, members.front());
  // Of the bootstrap's groups only this rank's own matters here.
  auto part = bootstrap_->split(std::move(axis), [&](int r) {
    const int peer = bootstrap_->members()[static_cast<size_t>(r)];
    return std::find(members.begin(), members.end(), peer) != members.end() ? 0 : 1;
  });
  return std::make_unique<NcclCommunicator>(channels_, std::move(part), std::move(path));
}

}  // namespace sluice::nccl
