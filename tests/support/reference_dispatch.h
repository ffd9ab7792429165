// The plain reference of nn/dispatcher.h: it sees the routing of all ranks of an expert group at once and picks rows,
// in the order of the contract and nothing cleverer. Values are doubles that hold numbers of the storage type; sums are
// made in its accumulator type. Everything per rank is indexed by rank.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/dtype.h"

namespace sluice::test {

// Rows of a matrix, all of the same length.
struct Rows {
  int64_t width = 0;
  std::vector<double> values;
  int64_t count() const { return width == 0 ? 0 : static_cast<int64_t>(values.size()) / width; }
  const double* row(int64_t i) const { return values.data() + i * width; }
};

class ReferenceDispatch {
 public:
  // `experts[rank]` is [T, K], T of each rank its own.
  ReferenceDispatch(int64_t num_experts, int64_t top_k, std::vector<std::vector<int32_t>> experts);

  // An expert row: slot `slot` of token `token` of rank `source` at `expert`; `received` counts the tokens that came
  // before it to the expert's rank.
  struct Row {
    int source = 0;
    int64_t token = 0;
    int64_t slot = 0;
    int64_t expert = 0;
    int64_t received = 0;
  };
  // By (expert, source rank, token).
  const std::vector<Row>& rows(int rank) const { return rows_[static_cast<size_t>(rank)]; }

  // The parts of a RoutingRecord, except weights.
  std::vector<int64_t> sent(int rank) const;
  std::vector<int64_t> received(int rank) const;
  std::vector<double> send_token(int rank) const;
  std::vector<double> send_row(int rank) const;
  std::vector<double> offsets(int rank) const;
  std::vector<double> row_token(int rank) const;
  std::vector<double> row_slot(int rank) const;
  std::vector<double> slot_row(int rank) const;

  // Expert rows of `rank` from x[rank] [T, D].
  Rows to_experts(int rank, const std::vector<Rows>& x) const;
  // Weights of the expert rows of `rank` from weights[rank] [T, K].
  std::vector<double> row_weights(int rank, const std::vector<Rows>& weights) const;
  // [add +] sum over each token's expert rows, of the expert rows y[rank], in the order of the contract; `add` may be
  // null.
  Rows from_experts(int rank, const std::vector<Rows>& y, const Rows* add, DType dtype) const;
  // The same in f64 in the order of slots.
  Rows from_experts_by_slot(int rank, const std::vector<Rows>& y, const Rows* add) const;
  // [T, K] of `rank` from the rows' gradients drow[rank].
  Rows weight_gradients(int rank, const std::vector<std::vector<double>>& drow) const;

 private:
  int ranks() const { return static_cast<int>(experts_.size()); }
  int64_t tokens(int rank) const;
  int64_t expert(int rank, int64_t token, int64_t slot) const;
  bool goes_to(int source, int64_t token, int rank) const;
  // Index of a token's slot among the expert rows of the rank it goes to.
  int64_t row_of(int source, int64_t token, int64_t slot) const;

  int64_t per_rank_;
  int64_t top_k_;
  std::vector<std::vector<int32_t>> experts_;
  std::vector<std::vector<Row>> rows_;
};

}  // namespace sluice::test
