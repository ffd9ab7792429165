#include "nn/dispatcher.h"

#include <algorithm>
#include <numeric>

namespace sluice {

namespace {

Tensor gather(Context& ctx, const Tensor& x, const Tensor& index, Arena& arena) {
  Tensor y = arena.empty({index.dim(0), x.dim(1)}, x.dtype());
  ctx.run(GatherRows{.y = y, .x = x, .index = index});
  return y;
}

}  // namespace

Work Dispatcher::exchange(Context& ctx, const Tensor& out, const Tensor& in, const RoutingRecord& record) const {
  ctx.report(Part::dispatcher, ep_.transport());
  return ep_.all_to_all_v(ctx.compute(), out, record.received, in, record.sent, ctx.place());
}

Work Dispatcher::exchange_back(Context& ctx, const Tensor& out, const Tensor& in, const RoutingRecord& record) const {
  return ep_.all_to_all_v(ctx.compute(), out, record.sent, in, record.received, ctx.place());
}

// Decides which token goes to which rank, tells the ranks how many rows to expect, and sends the tokens' routing.
void Dispatcher::plan_exchange(Context& ctx, RoutingRecord& record, const LoadForecast& forecast, Tensor& experts,
                               Tensor& weights) const {
  require(ctx.real() || forecast, "{}: no forecast of the rows that {} ranks exchange", ctx.place(), ep_.size());
  const int64_t t = record.experts.dim(0);
  const int64_t k = record.experts.dim(1);
  const int64_t ranks = ep_.size();
  const int64_t fan = std::min(k, ranks);
  Arena& scratch = ctx.scratch();

  Tensor counts = scratch.empty({ranks, 2}, DType::i32);
  Tensor incoming = scratch.empty({ranks, 2}, DType::i32);
  record.send_row = ctx.records().empty({t, fan}, DType::i32);
  // Sized for the worst case here; what is kept is cut to the rows really sent.
  Tensor send_token = scratch.empty({t * fan}, DType::i32);
  ctx.run(DispatchPlan{.counts = counts,
                       .send_token = send_token,
                       .send_row = record.send_row,
                       .experts = record.experts,
                       .num_experts = num_experts_});
  const std::vector<int64_t> one_each(static_cast<size_t>(ranks), 1);
  ep_.all_to_all_v(ctx.compute(), incoming, one_each, counts, one_each, ctx.place()).wait(ctx.compute());

  const auto outgoing = ctx.read<int32_t>(counts, [&] { return forecast(ep_.rank()); });
  const auto arriving = ctx.read<int32_t>(incoming, [&] {
    std::vector<int32_t> values;
    for (int source = 0; source < ep_.size(); ++source) {
      const std::vector<int32_t> sent = forecast(source);
      values.push_back(sent[static_cast<size_t>(2 * ep_.rank())]);
      values.push_back(sent[static_cast<size_t>(2 * ep_.rank() + 1)]);
    }
    return values;
  });
  record.sent.clear();
  record.received.clear();
  record.expert_rows = 0;
  for (size_t r = 0; r < static_cast<size_t>(ranks); ++r) {
    record.sent.push_back(outgoing[2 * r]);
    record.received.push_back(arriving[2 * r]);
    record.expert_rows += arriving[2 * r + 1];
  }
  const int64_t rows_sent = std::accumulate(record.sent.begin(), record.sent.end(), int64_t{0});
  record.received_rows = std::accumulate(record.received.begin(), record.received.end(), int64_t{0});
  record.send_token = ctx.records().empty({rows_sent}, DType::i32);
  ctx.run(Copy{.y = record.send_token, .x = send_token.rows(0, rows_sent)});

  experts = scratch.empty({record.received_rows, k}, DType::i32);
  weights = scratch.empty({record.received_rows, k}, record.weights.dtype());
  Work sent_experts = exchange(ctx, experts, gather(ctx, record.experts, record.send_token, scratch), record);
  Work sent_weights = exchange(ctx, weights, gather(ctx, record.weights, record.send_token, scratch), record);
  sent_experts.wait(ctx.compute());
  sent_weights.wait(ctx.compute());
}

void Dispatcher::plan(Context& ctx, RoutingRecord& record, const LoadForecast& forecast) const {
  const int64_t k = record.experts.dim(1);
  const ArenaScope scope(ctx.scratch());
  Tensor experts = record.experts;
  Tensor weights = record.weights;
  if (alone()) {
    record.received_rows = experts.dim(0);
    record.expert_rows = experts.numel();
  } else {
    plan_exchange(ctx, record, forecast, experts, weights);
  }
  const int row_align = ctx.backend().target().row_align;
  // Pad rows are known only to the device: at most one alignment per expert.
  if (row_align > 1) record.expert_rows += local_experts() * row_align;
  Arena& kept = ctx.records();
  const int64_t m = record.expert_rows;
  record.offsets = kept.empty({local_experts() + 1}, DType::i32);
  record.row_token = kept.empty({m}, DType::i32);
  record.row_slot = kept.empty({m}, DType::i32);
  record.slot_row = kept.empty({record.received_rows, k}, DType::i32);
  record.row_weight = kept.empty({m}, weights.dtype());
  ctx.run(ExpertSort{.offsets = record.offsets,
                     .row_token = record.row_token,
                     .row_slot = record.row_slot,
                     .slot_row = record.slot_row,
                     .experts = experts,
                     .first = first_expert(),
                     .row_align = row_align,
                     .folded = folded_});
  ctx.run(GatherRows{
      .y = record.row_weight.view({m, 1}), .x = weights.view({weights.numel(), 1}), .index = record.row_slot});
}

Dispatcher::Transfer Dispatcher::begin_to_experts(Context& ctx, const Tensor& x, const RoutingRecord& record) const {
  Transfer transfer;
  if (alone()) {
    ctx.report(Part::dispatcher, Kernel::no_exchange);
    transfer.received = x;
    return transfer;
  }
  transfer.sent = gather(ctx, x, record.send_token, ctx.scratch());
  transfer.received = ctx.scratch().empty({record.received_rows, x.dim(1)}, x.dtype());
  transfer.work = exchange(ctx, transfer.received, transfer.sent, record);
  return transfer;
}

Tensor Dispatcher::end_to_experts(Context& ctx, Transfer& transfer, const RoutingRecord& record, Arena& arena) const {
  transfer.work.wait(ctx.compute());
  return gather(ctx, transfer.received, record.row_token, arena);
}

Dispatcher::Transfer Dispatcher::begin_from_experts(Context& ctx, const Tensor& y, const RoutingRecord& record) const {
  Transfer transfer;
  if (alone()) {
    transfer.received = y;
    return transfer;
  }
  transfer.sent = ctx.scratch().empty({record.received_rows, y.dim(1)}, y.dtype());
  ctx.run(SumRows{.y = transfer.sent, .x = y, .index = record.slot_row});
  transfer.received = ctx.scratch().empty({record.send_token.dim(0), y.dim(1)}, y.dtype());
  transfer.work = exchange_back(ctx, transfer.received, transfer.sent, record);
  return transfer;
}

void Dispatcher::end_from_experts(Context& ctx, Transfer& transfer, const RoutingRecord& record, const Tensor& out,
                                  const Tensor& add) const {
  transfer.work.wait(ctx.compute());
  const Tensor& index = alone() ? record.slot_row : record.send_row;
  ctx.run(SumRows{.y = out, .x = transfer.received, .index = index, .add = add});
}

Tensor Dispatcher::weight_gradients(Context& ctx, const Tensor& drow, const RoutingRecord& record) const {
  const int64_t m = drow.dim(0);
  const int64_t k = record.slot_row.dim(1);
  Arena& scratch = ctx.scratch();
  // A slot that was computed elsewhere has no row here and gets zero, so summing over ranks puts the pieces together.
  Tensor slots = scratch.empty({record.received_rows, k}, drow.dtype());
  Tensor row_of_slot = scratch.empty({record.received_rows * k}, DType::i32);
  ctx.run(InvertIndex{.inverse = row_of_slot, .index = record.row_slot});
  ctx.run(GatherRows{.y = slots.view({record.received_rows * k, 1}), .x = drow.view({m, 1}), .index = row_of_slot});
  if (alone()) return slots;
  Tensor back = scratch.empty({record.send_token.dim(0), k}, drow.dtype());
  exchange_back(ctx, back, slots, record).wait(ctx.compute());
  Tensor dweights = scratch.empty({record.send_row.dim(0), k}, drow.dtype());
  ctx.run(SumRows{.y = dweights, .x = back, .index = record.send_row});
  return dweights;
}

}  // namespace sluice
