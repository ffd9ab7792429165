#include "comm/communicator.h"

#include <cstring>

namespace sluice {

std::string_view name_of(Collective kind) {
  switch (kind) {
    case Collective::all_gather:
      return "all_gather";
    case Collective::reduce_scatter:
      return "reduce_scatter";
    case Collective::all_reduce:
      return "all_reduce";
    case Collective::all_to_all_v:
      return "all_to_all_v";
    case Collective::broadcast:
      return "broadcast";
    case Collective::send:
      return "send";
    case Collective::recv:
      return "recv";
    case Collective::barrier:
      return "barrier";
  }
  return "?";
}

std::string CallName::str() const {
  const std::string of_step = step > 0 ? fmt::format(", step {}", step) : "";
  return fmt::format("{} of {} (axis {}{})", name_of(kind), what, axis, of_step);
}

Communicator::Communicator(std::string axis, std::vector<int> members, int rank)
    : axis_(std::move(axis)), members_(std::move(members)), rank_(rank) {
  require(rank >= 0 && rank < size(), "rank {} of a group of {} ({})", rank, size(), axis_);
}

void Communicator::refuse(Collective kind, std::string_view what, const std::string& reason) const {
  const CallName call = name_call(kind, what);
  throw Error(ErrorKind::internal, fmt::format("rank {}, {}: {}", world_rank(), call.str(), reason));
}

void Communicator::check_dense(Collective kind, std::string_view what, const Tensor& t, std::string_view name) const {
  check(t.dense(), kind, what, "{} {} has stride {}; only dense tensors are communicated", name, t.str(), t.stride());
  check(t.defined() || t.numel() == 0, kind, what, "{} {} has no memory", name, t.str());
}

void Communicator::check_summable(Collective kind, std::string_view what, const Tensor& t) const {
  const DType d = t.dtype();
  const bool ok = d == DType::f64 || d == DType::f32 || d == DType::bf16 || d == DType::i64 || d == DType::i32;
  check(ok, kind, what, "{} cannot be reduced", t.str());
}

void Communicator::check_rows(std::string_view what, const Tensor& t, std::span<const int64_t> counts,
                              std::string_view name) const {
  const auto kind = Collective::all_to_all_v;
  check_dense(kind, what, t, name);
  check(std::ssize(counts) == size(), kind, what, "{} counts of {} for {} ranks", counts.size(), name, size());
  int64_t rows = 0;
  for (int r = 0; r < size(); ++r) {
    const int64_t count = counts[static_cast<size_t>(r)];
    check(count >= 0, kind, what, "{} count of rank {} is {}", name, members_[static_cast<size_t>(r)], count);
    rows += count;
  }
  check(t.dim(0) == rows, kind, what, "{} {} has {} rows, its counts add up to {}", name, t.str(), t.dim(0), rows);
}

void Communicator::check_peer(Collective kind, std::string_view what, int peer) const {
  check(peer >= 0 && peer < size() && peer != rank_, kind, what, "peer {} of rank {} in a group of {}", peer, rank_,
        size());
}

void Communicator::copy_local(Stream& /*after*/, const Tensor& out, const Tensor& in) {
  std::memmove(out.raw(), in.raw(), in.bytes());
}

Work Communicator::identity(Stream& after, const Tensor& out, const Tensor& in) {
  if (real() && out.raw() != in.raw() && in.bytes() > 0) copy_local(after, out, in);
  return {};
}

Work Communicator::all_gather(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) {
  const auto kind = Collective::all_gather;
  check_dense(kind, what, out, "out");
  check_dense(kind, what, in, "in");
  check(out.dtype() == in.dtype() && out.numel() == in.numel() * size(), kind, what, "out {} is not {} times in {}",
        out.str(), size(), in.str());
  if (alone()) return identity(after, out, in);
  return timed([&] { return do_all_gather(after, out, in, what); });
}

Work Communicator::reduce_scatter(Stream& after, const Tensor& out, const Tensor& in, std::string_view what) {
  const auto kind = Collective::reduce_scatter;
  check_dense(kind, what, out, "out");
  check_dense(kind, what, in, "in");
  check_summable(kind, what, in);
  check(out.dtype() == in.dtype() && out.numel() * size() == in.numel(), kind, what, "in {} is not {} times out {}",
        in.str(), size(), out.str());
  if (alone()) return identity(after, out, in);
  return timed([&] { return do_reduce_scatter(after, out, in, what); });
}

Work Communicator::all_reduce(Stream& after, const Tensor& data, ReduceOp op, std::string_view what) {
  check_dense(Collective::all_reduce, what, data, "data");
  check_summable(Collective::all_reduce, what, data);
  if (alone()) return {};
  return timed([&] { return do_all_reduce(after, data, op, what); });
}

Work Communicator::all_to_all_v(Stream& after, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                                std::span<const int64_t> in_counts, std::string_view what) {
  const auto kind = Collective::all_to_all_v;
  check_rows(what, out, out_counts, "out");
  check_rows(what, in, in_counts, "in");
  const bool same_rows = out.shape().inner() == in.shape().inner() || out.rank() == 0 || in.rank() == 0;
  check(out.dtype() == in.dtype() && same_rows, kind, what, "rows of out {} are not like rows of in {}", out.str(),
        in.str());
  const auto self = static_cast<size_t>(rank_);
  check(out_counts[self] == in_counts[self], kind, what, "this rank keeps {} rows but expects {} from itself",
        in_counts[self], out_counts[self]);
  if (alone()) return identity(after, out, in);
  return timed([&] { return do_all_to_all_v(after, out, out_counts, in, in_counts, what); });
}

Work Communicator::broadcast(Stream& after, const Tensor& data, int root, std::string_view what) {
  check_dense(Collective::broadcast, what, data, "data");
  check(root >= 0 && root < size(), Collective::broadcast, what, "root {} in a group of {}", root, size());
  if (alone()) return {};
  return timed([&] { return do_broadcast(after, data, root, what); });
}

Work Communicator::send(Stream& after, const Tensor& data, int to, int tag, std::string_view what) {
  check_dense(Collective::send, what, data, "data");
  check_peer(Collective::send, what, to);
  return timed([&] { return do_send(after, data, to, tag, what); });
}

Work Communicator::recv(Stream& after, const Tensor& data, int from, int tag, std::string_view what) {
  check_dense(Collective::recv, what, data, "data");
  check_peer(Collective::recv, what, from);
  return timed([&] { return do_recv(after, data, from, tag, what); });
}

void Communicator::barrier(Stream& stream, std::string_view what) {
  if (alone()) return;
  const Stopwatch watch;
  do_barrier(stream, what);
  rank_state_->seconds += watch.seconds();
}

std::unique_ptr<Communicator> Communicator::split(std::string axis, const std::function<int(int rank)>& color_of) {
  const int color = color_of(rank_);
  std::vector<int> members;
  int position = 0;
  for (int r = 0; r < size(); ++r) {
    if (color_of(r) != color) continue;
    if (r == rank_) position = static_cast<int>(members.size());
    members.push_back(members_[static_cast<size_t>(r)]);
  }
  std::unique_ptr<Communicator> group = do_split(std::move(axis), std::move(members), position);
  group->rank_state_ = rank_state_;
  return group;
}

}  // namespace sluice
