#include "comm/processes/process_communicator.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <future>
#include <utility>

#include "base/hash.h"
#include "comm/queued_work.h"
#include "comm/reduce.h"

namespace sluice {
namespace {

constexpr int kCollectiveTag = -1;  // messages have their callers'
// Data of others that is taken in at a time, in two halves: one arrives while the other is added up.
constexpr size_t kScratchBytes = size_t{8} << 20;
// All ranks send each other all of so little: that takes one way, sharing the sum two.
constexpr size_t kSmallSum = size_t{16} << 10;

std::byte* at(void* data, int64_t element, DType dtype) {
  return static_cast<std::byte*>(data) + element * static_cast<int64_t>(size_of(dtype));
}
const std::byte* at(const void* data, int64_t element, DType dtype) {
  return static_cast<const std::byte*>(data) + element * static_cast<int64_t>(size_of(dtype));
}
size_t bytes_of(int64_t elements, DType dtype) {
  return static_cast<size_t>(elements) * size_of(dtype);
}
std::string describe(DType dtype, int64_t elements) {
  return fmt::format("{} x {}", name_of(dtype), elements);
}

// A collective that is over.
class EndedWork final : public Work::Pending {
 public:
  EndedWork(Job& job, int rank, CallName call) : job_(job), rank_(rank), call_(std::move(call)) {}
  ~EndedWork() override {
    if (!waited_) job_.dropped(rank_, call_, unwinding_());
  }
  void wait(Stream& /*stream*/) override { waited_ = true; }

 private:
  Job& job_;
  int rank_;
  CallName call_;
  bool waited_ = false;
  UnwindingSince unwinding_;
};

// A message that is under way.
class TransferWork final : public Work::Pending {
 public:
  explicit TransferWork(std::unique_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~TransferWork() override {
    if (!exchange_) return;
    Job& job = exchange_->job();
    const int rank = exchange_->rank();
    const CallName call = exchange_->call();
    exchange_.reset();
    job.dropped(rank, call, unwinding_());
  }
  void wait(Stream& /*stream*/) override {
    const std::unique_ptr<Exchange> exchange = std::move(exchange_);
    exchange->wait();
  }

 private:
  std::unique_ptr<Exchange> exchange_;
  UnwindingSince unwinding_;
};

}  // namespace

// What is reduced: of every rank of the group a part, of which the rank gets the sum or maximum.
struct ProcessCommunicator::Parts {
  DType dtype = DType::f32;
  ReduceOp op = ReduceOp::sum;
  const void* data = nullptr;   // this rank's, of all parts
  std::vector<int64_t> begins;  // of each part, and the end
  void* out = nullptr;          // this rank's part
  std::string what;             // the same on all ranks
};

ProcessCommunicator::ProcessCommunicator(ProcessWorld& world, uint64_t channel, std::string axis,
                                         std::vector<int> members, int rank)
    : Communicator(std::move(axis), std::move(members), rank), world_(world), channel_(channel) {
  if (world.async() && size() > 1) worker_.emplace(world_rank(), size());
}

ProcessCommunicator::~ProcessCommunicator() {
  const CallName call = name_call(Collective::barrier, "the end of its communicator");
  if (worker_ && unwinding_() && !worker_->idle()) world_.job().dropped(world_rank(), call, true);
}

std::vector<int> ProcessCommunicator::others() const {
  std::vector<int> list;
  for (int i = 1; i < size(); ++i) list.push_back((rank() + i) % size());
  return list;
}

void ProcessCommunicator::gather(Exchange& exchange, const Tensor& out, const Tensor& in) {
  const int64_t n = in.numel();
  const std::string data = describe(in.dtype(), n);
  for (const int other : others()) {
    const int peer = members()[static_cast<size_t>(other)];
    exchange.receive(peer, kCollectiveTag, at(out.raw(), other * n, in.dtype()), in.bytes(), data);
    exchange.send(peer, kCollectiveTag, in.raw(), in.bytes(), data);
  }
  std::byte* const own = at(out.raw(), rank() * n, in.dtype());
  if (own != in.raw() && in.bytes() > 0) std::memmove(own, in.raw(), in.bytes());
  exchange.wait();
}

void ProcessCommunicator::reduce_part(Exchange& exchange, const Tensor& out, const Tensor& in) {
  Parts parts{.dtype = out.dtype(),
              .data = in.raw(),
              .begins = {},
              .out = out.raw(),
              .what = describe(out.dtype(), out.numel())};
  for (int r = 0; r <= size(); ++r) parts.begins.push_back(r * out.numel());
  reduce(exchange, parts);
}

void ProcessCommunicator::reduce_all(Exchange& exchange, const Tensor& data, ReduceOp op) {
  const int64_t n = data.numel();
  const std::string what = fmt::format("{}, {}", describe(data.dtype(), n), op == ReduceOp::sum ? "sum" : "max");
  Parts parts{.dtype = data.dtype(), .op = op, .data = data.raw(), .begins = {}, .out = nullptr, .what = what};
  if (data.bytes() <= kSmallSum) {
    // Everybody's part is the whole: all have the same sum.
    scratch_.resize(std::max(scratch_.size(), data.bytes() * static_cast<size_t>(size())));
    std::vector<const void*> in(static_cast<size_t>(size()), data.raw());
    for (const int other : others()) {
      const int peer = members()[static_cast<size_t>(other)];
      std::byte* const theirs = scratch_.data() + static_cast<size_t>(other) * data.bytes();
      in[static_cast<size_t>(other)] = theirs;
      exchange.receive(peer, kCollectiveTag, theirs, data.bytes(), what);
      exchange.send(peer, kCollectiveTag, data.raw(), data.bytes(), what);
    }
    exchange.wait();
    void* const out = data.raw();
    return reduce_buffers(data.dtype(), op, std::span(&out, 1), in, n);
  }
  for (int r = 0; r <= size(); ++r) parts.begins.push_back(n * r / size());
  const auto begin_of = [&](int r) { return parts.begins[static_cast<size_t>(r)]; };
  const auto bytes_of_part = [&](int r) { return bytes_of(begin_of(r + 1) - begin_of(r), parts.dtype); };
  parts.out = at(data.raw(), begin_of(rank()), parts.dtype);
  reduce(exchange, parts);
  for (const int other : others()) {
    const int peer = members()[static_cast<size_t>(other)];
    exchange.receive(peer, kCollectiveTag, at(data.raw(), begin_of(other), parts.dtype), bytes_of_part(other), what);
    exchange.send(peer, kCollectiveTag, parts.out, bytes_of_part(rank()), what);
  }
  exchange.wait();
}

void ProcessCommunicator::reduce(Exchange& exchange, const Parts& parts) {
  const auto begin_of = [&](int r) { return parts.begins[static_cast<size_t>(r)]; };
  const auto length_of = [&](int r) { return begin_of(r + 1) - begin_of(r); };
  int64_t longest = 0;
  for (int r = 0; r < size(); ++r) longest = std::max(longest, length_of(r));
  const size_t element = size_of(parts.dtype);
  const size_t peers = static_cast<size_t>(size() - 1);
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(kScratchBytes / 2 / peers / element));
  const int64_t piece = std::min(longest, most);
  const size_t slot = bytes_of(piece, parts.dtype);
  scratch_.resize(std::max(scratch_.size(), 2 * peers * slot));

  const int64_t pieces = piece == 0 ? 1 : (longest + piece - 1) / piece;
  const auto range = [&](int r, int64_t number) {
    const int64_t first = std::min(number * piece, length_of(r));
    return std::pair(first, std::min(first + piece, length_of(r)) - first);
  };
  // A rank's place in the scratch, of the piece of that number.
  const auto place = [&](int other, int64_t number) {
    const auto index = static_cast<size_t>(other < rank() ? other : other - 1);
    return scratch_.data() + (static_cast<size_t>(number % 2) * peers + index) * slot;
  };
  const auto begin = [&](Exchange& to, int64_t number) {
    for (const int other : others()) {
      const int peer = members()[static_cast<size_t>(other)];
      to.receive(peer, kCollectiveTag, place(other, number), bytes_of(range(rank(), number).second, parts.dtype),
                 parts.what);
      const auto [first, count] = range(other, number);
      to.send(peer, kCollectiveTag, at(parts.data, begin_of(other) + first, parts.dtype), bytes_of(count, parts.dtype),
              parts.what);
    }
  };
  Exchange second = exchange.another();
  const std::array<Exchange*, 2> exchanges = {&exchange, &second};
  std::vector<const void*> in(static_cast<size_t>(size()));
  begin(exchange, 0);
  for (int64_t number = 0; number < pieces; ++number) {
    if (number + 1 < pieces) begin(*exchanges[static_cast<size_t>((number + 1) % 2)], number + 1);
    exchanges[static_cast<size_t>(number % 2)]->wait();
    const auto [first, count] = range(rank(), number);
    for (int r = 0; r < size(); ++r) {
      in[static_cast<size_t>(r)] = r == rank() ? at(parts.data, begin_of(r) + first, parts.dtype) : place(r, number);
    }
    void* const out = at(parts.out, first, parts.dtype);
    reduce_buffers(parts.dtype, parts.op, std::span(&out, 1), in, count);
  }
}

void ProcessCommunicator::exchange_rows(Exchange& exchange, const Tensor& out, std::span<const int64_t> out_counts,
                                        const Tensor& in, std::span<const int64_t> in_counts) {
  const Tensor& shaped = in.rank() > 0 ? in : out;
  const int64_t row = shaped.shape().inner();
  const DType dtype = shaped.dtype();
  std::vector<int64_t> in_begin(1, 0), out_begin(1, 0);
  for (int r = 0; r < size(); ++r) {
    in_begin.push_back(in_begin.back() + in_counts[static_cast<size_t>(r)]);
    out_begin.push_back(out_begin.back() + out_counts[static_cast<size_t>(r)]);
  }
  const auto rows = [&](int64_t count) { return fmt::format("{} rows of {}", count, describe(dtype, row)); };
  for (const int other : others()) {
    const auto r = static_cast<size_t>(other);
    const int peer = members()[r];
    exchange.receive(peer, kCollectiveTag, at(out.raw(), out_begin[r] * row, dtype),
                     bytes_of(out_counts[r] * row, dtype), rows(out_counts[r]));
    exchange.send(peer, kCollectiveTag, at(in.raw(), in_begin[r] * row, dtype), bytes_of(in_counts[r] * row, dtype),
                  rows(in_counts[r]));
  }
  const auto own = static_cast<size_t>(rank());
  if (in_counts[own] != out_counts[own]) {
    world_.job().fail_with(
        world_rank(),
        Error(ErrorKind::internal, fmt::format("rank {} in {}: it sends itself {}, and expects {}", world_rank(),
                                               exchange.call().str(), rows(in_counts[own]), rows(out_counts[own]))));
  }
  if (const size_t bytes = bytes_of(in_counts[own] * row, dtype)) {
    std::memcpy(at(out.raw(), out_begin[own] * row, dtype), at(in.raw(), in_begin[own] * row, dtype), bytes);
  }
  exchange.wait();
}

// --- calls
// ------------------------------------------------------------------------------------------------------------

Work ProcessCommunicator::run(Collective kind, std::string_view what, std::function<void(Exchange&)> body) {
  const CallName call = name_call(kind, what);
  const auto done = [this, call, body = std::move(body)] {
    world_.job().check(world_rank(), call);
    Exchange exchange(world_, channel_, world_rank(), call, /*same_call=*/true);
    body(exchange);
    return Work(std::make_unique<EndedWork>(world_.job(), world_rank(), call));
  };
  return worker_ ? queue(call, done) : done();
}

template <class Body>
Work ProcessCommunicator::queue(const CallName& call, Body body) {
  return queue_work(*worker_, world_.job(), world_rank(), call, std::packaged_task<Work()>(std::move(body)));
}

Work ProcessCommunicator::do_all_gather(Stream& /*after*/, const Tensor& out, const Tensor& in, std::string_view what) {
  return run(Collective::all_gather, what, [this, out, in](Exchange& exchange) { gather(exchange, out, in); });
}

Work ProcessCommunicator::do_reduce_scatter(Stream& /*after*/, const Tensor& out, const Tensor& in,
                                            std::string_view what) {
  return run(Collective::reduce_scatter, what, [this, out, in](Exchange& exchange) { reduce_part(exchange, out, in); });
}

Work ProcessCommunicator::do_all_reduce(Stream& /*after*/, const Tensor& data, ReduceOp op, std::string_view what) {
  return run(Collective::all_reduce, what, [this, data, op](Exchange& exchange) { reduce_all(exchange, data, op); });
}

Work ProcessCommunicator::do_all_to_all_v(Stream& /*after*/, const Tensor& out, std::span<const int64_t> out_counts,
                                          const Tensor& in, std::span<const int64_t> in_counts, std::string_view what) {
  return run(Collective::all_to_all_v, what,
             [this, out, in, out_list = std::vector(out_counts.begin(), out_counts.end()),
              in_list = std::vector(in_counts.begin(), in_counts.end())](Exchange& exchange) {
               exchange_rows(exchange, out, out_list, in, in_list);
             });
}

Work ProcessCommunicator::do_broadcast(Stream& /*after*/, const Tensor& data, int root, std::string_view what) {
  return run(Collective::broadcast, what, [this, data, root](Exchange& exchange) {
    const std::string shape = fmt::format("{}, root {}", describe(data.dtype(), data.numel()), root);
    if (rank() == root) {
      for (const int other : others()) {
        exchange.send(members()[static_cast<size_t>(other)], kCollectiveTag, data.raw(), data.bytes(), shape);
      }
    } else {
      exchange.receive(members()[static_cast<size_t>(root)], kCollectiveTag, data.raw(), data.bytes(), shape);
    }
    exchange.wait();
  });
}

void ProcessCommunicator::do_barrier(Stream& stream, std::string_view what) {
  run(Collective::barrier, what, [this](Exchange& exchange) {
    for (const int other : others()) {
      const int peer = members()[static_cast<size_t>(other)];
      exchange.receive(peer, kCollectiveTag, nullptr, 0, "");
      exchange.send(peer, kCollectiveTag, nullptr, 0, "");
    }
    exchange.wait();
  }).wait(stream);
}

Work ProcessCommunicator::do_send(Stream& /*after*/, const Tensor& data, int to, int tag, std::string_view what) {
  return transfer(Collective::send, data, to, tag, what);
}

Work ProcessCommunicator::do_recv(Stream& /*after*/, const Tensor& data, int from, int tag, std::string_view what) {
  return transfer(Collective::recv, data, from, tag, what);
}

Work ProcessCommunicator::transfer(Collective kind, const Tensor& data, int peer, int tag, std::string_view what) {
  require(tag >= 0, "a message with the tag {}", tag);
  const CallName call = name_call(kind, what);
  const auto begun = [this, call, data, peer, tag] {
    world_.job().check(world_rank(), call);
    auto exchange = std::make_unique<Exchange>(world_, channel_, world_rank(), call, /*same_call=*/false);
    const std::string shape = describe(data.dtype(), data.numel());
    const int other = members()[static_cast<size_t>(peer)];
    if (call.kind == Collective::send) {
      exchange->send(other, tag, data.raw(), data.bytes(), shape);
    } else {
      exchange->receive(other, tag, data.raw(), data.bytes(), shape);
    }
    return Work(std::make_unique<TransferWork>(std::move(exchange)));
  };
  return worker_ ? queue(call, begun) : begun();
}

std::unique_ptr<Communicator> ProcessCommunicator::do_split(std::string axis, std::vector<int> members, int rank) {
  const std::array<uint64_t, 3> key = {channel_, splits_++, static_cast<uint64_t>(members.front())};
  const uint64_t channel = hash64(std::as_bytes(std::span(key)));
  return std::make_unique<ProcessCommunicator>(world_, channel, std::move(axis), std::move(members), rank);
}

}  // namespace sluice
