// Dispatcher: moves rows of tokens to the ranks and experts they are routed to, and back.
//
// A token goes once to each destination rank, however many of its experts live there. Received rows stand in the order
// (source rank, token); expert rows in the order (local expert, received row). Combine's order is part of the contract:
// per destination rank a partial sum over its experts ascending, in the accumulator type, rounded once to the wire
// dtype, then over ranks ascending in the accumulator type. `from_experts` is the gradient of `to_experts` and the
// other way round, so forward and backward are the same two calls.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "comm/communicator.h"
#include "device/context.h"

namespace sluice {

// What meta answers when the host asks how many rows of a micro-batch are coming: DispatchPlan::counts of
// expert-parallel rank `source`, [R, 2] values. Empty where memory is real.
using LoadForecast = std::function<std::vector<int32_t>(int source)>;

// A routing decision and everything that follows from it; lives in the records arena, so nothing is decided twice.
struct RoutingRecord {
  Tensor experts;  // i32 [T, K]
  Tensor weights;  // [T, K]

  // Rows exchanged, by rank of the expert group. With one rank there is no exchange.
  std::vector<int64_t> sent;
  std::vector<int64_t> received;
  Tensor send_token;  // i32 [rows sent]
  Tensor send_row;    // i32 [T, min(K, R)]

  int64_t received_rows = 0;
  int64_t expert_rows = 0;  // M
  Tensor offsets;           // i32 [experts here + 1]
  Tensor row_token;         // i32 [M], received row of an expert row
  Tensor slot_row;          // i32 [received rows, K], expert rows of a received row
  Tensor row_slot;          // i32 [M], (received row, slot) of an expert row
  Tensor row_weight;        // [M], routing weight of an expert row
};

class Dispatcher {
 public:
  // `ep` must outlive the dispatcher. With `folded`, which one rank alone can be, routing speaks of more experts than
  // `num_experts`: e runs as e mod num_experts.
  Dispatcher(Communicator& ep, int64_t num_experts, bool folded = false)
      : ep_(ep), num_experts_(num_experts), folded_(folded) {
    require(!folded || alone(), "experts are folded on one rank, not on {}", ep.size());
  }

  int64_t local_experts() const { return num_experts_ / ep_.size(); }
  int64_t first_expert() const { return ep_.rank() * local_experts(); }

  // From record.experts and record.weights fills in the rest. Reads the row counts on the host once.
  void plan(Context& ctx, RoutingRecord& record, const LoadForecast& forecast = {}) const;

  // A dispatch under way: between begin and end the rows travel.
  struct Transfer {
    Tensor sent;
    Tensor received;
    Work work;
  };
  // x [T, D] -> expert rows [M, D] in `arena`
  Transfer begin_to_experts(Context& ctx, const Tensor& x, const RoutingRecord& record) const;
  Tensor end_to_experts(Context& ctx, Transfer& transfer, const RoutingRecord& record, Arena& arena) const;
  // y [M, D] -> out [T, D] = [add +] sum over the token's expert rows
  Transfer begin_from_experts(Context& ctx, const Tensor& y, const RoutingRecord& record) const;
  void end_from_experts(Context& ctx, Transfer& transfer, const RoutingRecord& record, const Tensor& out,
                        const Tensor& add) const;
  // Gradients of the routing weights: drow [M] -> [T, K] in scratch.
  Tensor weight_gradients(Context& ctx, const Tensor& drow, const RoutingRecord& record) const;

 private:
  bool alone() const { return ep_.size() == 1; }
  // A row a token sent, to the rank it goes to; and the way back.
  Work exchange(Context& ctx, const Tensor& out, const Tensor& in, const RoutingRecord& record) const;
  Work exchange_back(Context& ctx, const Tensor& out, const Tensor& in, const RoutingRecord& record) const;
  void plan_exchange(Context& ctx, RoutingRecord& record, const LoadForecast& forecast, Tensor& experts,
                     Tensor& weights) const;

  Communicator& ep_;
  int64_t num_experts_;
  bool folded_;
};

}  // namespace sluice
