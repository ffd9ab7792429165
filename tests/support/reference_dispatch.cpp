#include "support/reference_dispatch.h"

#include <algorithm>
#include <utility>

namespace sluice::test {

namespace {

double number(int64_t n) {
  return static_cast<double>(n);
}

}  // namespace

ReferenceDispatch::ReferenceDispatch(int64_t num_experts, int64_t top_k, std::vector<std::vector<int32_t>> experts)
    : per_rank_(num_experts / static_cast<int64_t>(experts.size())), top_k_(top_k), experts_(std::move(experts)) {
  for (int rank = 0; rank < ranks(); ++rank) {
    std::vector<Row> rows;
    for (int64_t e = rank * per_rank_; e < (rank + 1) * per_rank_; ++e) {
      int64_t received = 0;
      for (int source = 0; source < ranks(); ++source) {
        for (int64_t token = 0; token < tokens(source); ++token) {
          for (int64_t slot = 0; slot < top_k; ++slot) {
            if (expert(source, token, slot) == e) rows.push_back({source, token, slot, e, received});
          }
          received += goes_to(source, token, rank) ? 1 : 0;
        }
      }
    }
    rows_.push_back(std::move(rows));
  }
}

int64_t ReferenceDispatch::tokens(int rank) const {
  return static_cast<int64_t>(experts_[static_cast<size_t>(rank)].size()) / top_k_;
}

int64_t ReferenceDispatch::expert(int rank, int64_t token, int64_t slot) const {
  return experts_[static_cast<size_t>(rank)][static_cast<size_t>(token * top_k_ + slot)];
}

bool ReferenceDispatch::goes_to(int source, int64_t token, int rank) const {
  for (int64_t slot = 0; slot < top_k_; ++slot) {
    if (expert(source, token, slot) / per_rank_ == rank) return true;
  }
  return false;
}

int64_t ReferenceDispatch::row_of(int source, int64_t token, int64_t slot) const {
  const auto& rows = rows_[static_cast<size_t>(expert(source, token, slot) / per_rank_)];
  const auto found = std::find_if(rows.begin(), rows.end(), [&](const Row& row) {
    return row.source == source && row.token == token && row.slot == slot;
  });
  return found - rows.begin();
}

std::vector<int64_t> ReferenceDispatch::sent(int rank) const {
  std::vector<int64_t> counts;
  for (int to = 0; to < ranks(); ++to) {
    counts.push_back(0);
    for (int64_t token = 0; token < tokens(rank); ++token) counts.back() += goes_to(rank, token, to) ? 1 : 0;
  }
  return counts;
}

std::vector<int64_t> ReferenceDispatch::received(int rank) const {
  std::vector<int64_t> counts;
  for (int from = 0; from < ranks(); ++from) counts.push_back(sent(from)[static_cast<size_t>(rank)]);
  return counts;
}

std::vector<double> ReferenceDispatch::send_token(int rank) const {
  std::vector<double> list;
  for (int to = 0; to < ranks(); ++to) {
    for (int64_t token = 0; token < tokens(rank); ++token) {
      if (goes_to(rank, token, to)) list.push_back(number(token));
    }
  }
  return list;
}

std::vector<double> ReferenceDispatch::send_row(int rank) const {
  const auto width = static_cast<size_t>(std::min<int64_t>(top_k_, ranks()));
  const std::vector<double> sent_tokens = send_token(rank);
  std::vector<double> table;
  for (int64_t token = 0; token < tokens(rank); ++token) {
    std::vector<double> rows;
    for (size_t i = 0; i < sent_tokens.size(); ++i) {
      if (sent_tokens[i] == number(token)) rows.push_back(static_cast<double>(i));
    }
    rows.resize(width, -1);
    table.insert(table.end(), rows.begin(), rows.end());
  }
  return table;
}

std::vector<double> ReferenceDispatch::offsets(int rank) const {
  std::vector<double> list{0};
  for (int64_t e = rank * per_rank_; e < (rank + 1) * per_rank_; ++e) {
    const auto of_expert = [&](const Row& row) { return row.expert == e; };
    list.push_back(list.back() + number(std::count_if(rows(rank).begin(), rows(rank).end(), of_expert)));
  }
  return list;
}

std::vector<double> ReferenceDispatch::row_token(int rank) const {
  std::vector<double> list;
  for (const Row& row : rows(rank)) list.push_back(number(row.received));
  return list;
}

std::vector<double> ReferenceDispatch::row_slot(int rank) const {
  std::vector<double> list;
  for (const Row& row : rows(rank)) list.push_back(number(row.received * top_k_ + row.slot));
  return list;
}

std::vector<double> ReferenceDispatch::slot_row(int rank) const {
  std::vector<double> table;
  for (int source = 0; source < ranks(); ++source) {
    for (int64_t token = 0; token < tokens(source); ++token) {
      if (!goes_to(source, token, rank)) continue;
      std::vector<double> of_token;
      for (size_t m = 0; m < rows(rank).size(); ++m) {
        if (rows(rank)[m].source == source && rows(rank)[m].token == token) of_token.push_back(static_cast<double>(m));
      }
      of_token.resize(static_cast<size_t>(top_k_), -1);
      table.insert(table.end(), of_token.begin(), of_token.end());
    }
  }
  return table;
}

Rows ReferenceDispatch::to_experts(int rank, const std::vector<Rows>& x) const {
  Rows y{x.front().width, {}};
  for (const Row& row : rows(rank)) {
    const double* from = x[static_cast<size_t>(row.source)].row(row.token);
    y.values.insert(y.values.end(), from, from + y.width);
  }
  return y;
}

std::vector<double> ReferenceDispatch::row_weights(int rank, const std::vector<Rows>& weights) const {
  std::vector<double> list;
  for (const Row& row : rows(rank)) list.push_back(weights[static_cast<size_t>(row.source)].row(row.token)[row.slot]);
  return list;
}

Rows ReferenceDispatch::from_experts(int rank, const std::vector<Rows>& y, const Rows* add, DType dtype) const {
  Rows out{y.front().width, {}};
  dispatch_float(dtype, [&]<class T>(T) {
    using A = accumulator_t<T>;
    for (int64_t token = 0; token < tokens(rank); ++token) {
      for (int64_t d = 0; d < out.width; ++d) {
        A sum = 0;
        for (int at = 0; at < ranks(); ++at) {
          if (!goes_to(rank, token, at)) continue;
          A partial = 0;
          const std::vector<Row>& there = rows(at);
          for (size_t m = 0; m < there.size(); ++m) {
            if (there[m].source != rank || there[m].token != token) continue;
            partial += static_cast<A>(y[static_cast<size_t>(at)].row(static_cast<int64_t>(m))[d]);
          }
          // A single rank has no wire to round for.
          sum += ranks() == 1 ? partial : static_cast<A>(static_cast<T>(partial));
        }
        if (add != nullptr) sum += static_cast<A>(add->row(token)[d]);
        out.values.push_back(static_cast<double>(static_cast<T>(sum)));
      }
    }
  });
  return out;
}

Rows ReferenceDispatch::from_experts_by_slot(int rank, const std::vector<Rows>& y, const Rows* add) const {
  Rows out{y.front().width, {}};
  for (int64_t token = 0; token < tokens(rank); ++token) {
    for (int64_t d = 0; d < out.width; ++d) {
      double sum = 0;
      for (int64_t slot = 0; slot < top_k_; ++slot) {
        const int64_t at = expert(rank, token, slot) / per_rank_;
        sum += y[static_cast<size_t>(at)].row(row_of(rank, token, slot))[d];
      }
      out.values.push_back(add == nullptr ? sum : sum + add->row(token)[d]);
    }
  }
  return out;
}

Rows ReferenceDispatch::weight_gradients(int rank, const std::vector<std::vector<double>>& drow) const {
  Rows out{top_k_, {}};
  for (int64_t token = 0; token < tokens(rank); ++token) {
    for (int64_t slot = 0; slot < top_k_; ++slot) {
      const int64_t at = expert(rank, token, slot) / per_rank_;
      out.values.push_back(drow[static_cast<size_t>(at)][static_cast<size_t>(row_of(rank, token, slot))]);
    }
  }
  return out;
}

}  // namespace sluice::test
