// The communicator of a rank whose peers may be in other processes. Every collective is an exchange of messages between
// all pairs of the group.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/processes/exchange.h"
#include "comm/worker.h"

namespace sluice {

class ProcessCommunicator final : public Communicator {
 public:
  // `channel` is the same on all members, and no other communicator's.
  ProcessCommunicator(ProcessWorld& world, uint64_t channel, std::string axis, std::vector<int> members, int rank);
  ~ProcessCommunicator() override;
  ProcessCommunicator(const ProcessCommunicator&) = delete;
  ProcessCommunicator& operator=(const ProcessCommunicator&) = delete;
  ProcessCommunicator(ProcessCommunicator&&) = delete;
  ProcessCommunicator& operator=(ProcessCommunicator&&) = delete;

  bool real() const override { return true; }
  KernelSet transport() const override { return Kernel::processes; }

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
  std::unique_ptr<Communicator> do_split(std::string axis, std::vector<int> members, int rank) override;

  void gather(Exchange& exchange, const Tensor& out, const Tensor& in);
  void reduce_part(Exchange& exchange, const Tensor& out, const Tensor& in);
  void reduce_all(Exchange& exchange, const Tensor& data, ReduceOp op);
  void exchange_rows(Exchange& exchange, const Tensor& out, std::span<const int64_t> out_counts, const Tensor& in,
                     std::span<const int64_t> in_counts);
  // Of `elements` of every rank's data, from `begin`: their reduction in rank order, into `out`, which may be this
  // rank's own.
  struct Parts;
  void reduce(Exchange& exchange, const Parts& parts);

  // body(exchange) now, or on the worker; the Work of what it has done.
  Work run(Collective kind, std::string_view what, std::function<void(Exchange&)> body);
  Work transfer(Collective kind, const Tensor& data, int peer, int tag, std::string_view what);
  template <class Body>
  Work queue(const CallName& call, Body body);
  std::vector<int> others() const;  // of the group, beginning behind this rank, so that not all turn to the same one

  ProcessWorld& world_;
  uint64_t channel_;
  uint64_t splits_ = 0;
  std::vector<std::byte> scratch_;  // of sums: taken once, by the first
  UnwindingSince unwinding_;
  std::optional<Worker> worker_;
};

}  // namespace sluice
