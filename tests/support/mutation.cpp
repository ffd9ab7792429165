#include "support/mutation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "support/compare.h"
#include "support/host_tensor.h"

namespace sluice::test {

namespace {

// The bytes of a tensor's rows, [begin, begin + row) every `step`.
struct Extent {
  char* begin = nullptr;
  int64_t rows = 0;
  int64_t step = 0;
  int64_t row = 0;

  explicit Extent(const Tensor& t) {
    if (t.rank() == 0 || t.numel() == 0) return;
    const auto size = static_cast<int64_t>(size_of(t.dtype()));
    begin = static_cast<char*>(t.raw());
    rows = t.dim(0);
    step = t.stride() * size;
    row = t.shape().inner() * size;
  }
  char* end() const { return rows == 0 ? begin : begin + (rows - 1) * step + row; }
};

// A set of bytes, at first those of a tensor.
class Bytes {
 public:
  explicit Bytes(const Tensor& t) : extent_(t), held_(static_cast<size_t>(extent_.end() - extent_.begin)) {
    each(extent_, [&](size_t i) { held_[i] = true; });
  }
  void remove(const Tensor& t) {
    each(Extent(t), [&](size_t i) { held_[i] = false; });
  }
  bool overlaps(const Tensor& t) const {
    bool found = false;
    each(Extent(t), [&](size_t i) { found = found || held_[i]; });
    return found;
  }
  bool empty() const { return std::find(held_.begin(), held_.end(), true) == held_.end(); }
  bool holds(const char* byte) const { return held_[static_cast<size_t>(byte - extent_.begin)]; }

 private:
  template <class F>
  void each(const Extent& other, F&& f) const {
    if (held_.empty() || other.rows == 0 || other.begin >= extent_.end() || other.end() <= extent_.begin) return;
    for (int64_t i = 0; i < other.rows; ++i) {
      const char* begin = std::max<const char*>(other.begin + i * other.step, extent_.begin);
      const char* end = std::min<const char*>(other.begin + i * other.step + other.row, extent_.end());
      for (const char* byte = begin; byte < end; ++byte) f(static_cast<size_t>(byte - extent_.begin));
    }
  }

  Extent extent_;
  std::vector<bool> held_;
};

bool overlap(const Tensor& a, const Tensor& b) {
  const Extent x(a), y(b);
  if (x.rows == 0 || y.rows == 0 || x.begin >= y.end() || y.begin >= x.end()) return false;
  return (a.dense() && b.dense()) || Bytes(a).overlaps(b);
}

enum class Kind { zero_input, zero, negate, scale, drop_row, assign, poison };

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::zero_input:
      return "zero input";
    case Kind::zero:
      return "zero";
    case Kind::negate:
      return "negate";
    case Kind::scale:
      return "scale 1.01";
    case Kind::drop_row:
      return "drop row";
    case Kind::assign:
      return "= instead of +=";
    case Kind::poison:
      return "poison";
  }
  return "?";
}

// One mutant: what is done to tensor `tensor` of the `op`-th operation.
struct Mutant {
  int op = 0;
  size_t tensor = 0;
  Kind kind = Kind::zero;
};

bool before_op(Kind kind) {
  return kind == Kind::zero_input || kind == Kind::assign;
}

// Sets one row that holds something to zero (integers: to -1); false if no row does.
bool drop_row(const Tensor& t, std::vector<double>& values, uint64_t seed) {
  const auto inner = static_cast<size_t>(t.shape().inner());
  const size_t rows = inner == 0 ? 0 : values.size() / inner;
  const double nothing = is_float(t.dtype()) ? 0 : -1;
  for (size_t i = 0; i < rows; ++i) {
    const auto row = values.begin() + static_cast<int64_t>((i + seed) % rows * inner);
    const auto end = row + static_cast<int64_t>(inner);
    const bool holds = std::any_of(row, end, [&](double x) { return std::isfinite(x) && x != nothing; });
    if (!holds) continue;
    std::fill(row, end, nothing);
    return true;
  }
  return false;
}

// Changes the tensor in place; false if no bit changed.
bool apply(const Tensor& t, Kind kind, uint64_t seed) {
  const std::vector<double> was = values_of(t);
  std::vector<double> now = was;
  switch (kind) {
    case Kind::zero_input:
    case Kind::zero:
    case Kind::assign:
      std::fill(now.begin(), now.end(), 0);
      break;
    case Kind::negate:
      for (double& x : now) x = -x;
      break;
    case Kind::scale:
      for (double& x : now) x *= 1.01;
      break;
    case Kind::drop_row:
      if (!drop_row(t, now, seed)) return false;
      break;
    case Kind::poison:
      poison(t);
      return true;
  }
  // Rows of NaN that nobody fills stay so: zeroing those alone is no change worth a run.
  bool changed = false;
  for (size_t i = 0; i < was.size(); ++i) changed = changed || (!std::isnan(was[i]) && now[i] != was[i]);
  if (changed) assign(t, now);
  return changed;
}

// Counts operations, keeps their tensors, and breaks one.
class Mutator final : public OpObserver {
 public:
  Mutator(std::optional<Mutant> mutant, uint64_t seed) : mutant_(mutant), seed_(seed) {}

  bool changed() const { return changed_; }
  const std::vector<OpRecord>& trace() const { return trace_; }

  void before(const OpRecord& record) override {
    poison_.before(record);
    if (!mutant_) {
      trace_.push_back(record);
    } else if (hit(record) && before_op(mutant_->kind)) {
      const OpTensor& target = record.tensors[mutant_->tensor];
      saved_.assign(Extent(target.tensor).begin, Extent(target.tensor).end());
      changed_ = apply(target.tensor, mutant_->kind, seed_);
    }
  }

  void after(const OpRecord& record) override {
    if (mutant_ && hit(record)) {
      const Tensor& target = record.tensors[mutant_->tensor].tensor;
      if (!before_op(mutant_->kind)) {
        changed_ = apply(target, mutant_->kind, seed_);
      } else if (mutant_->kind == Kind::zero_input && changed_) {
        restore(record, target);
      }
    }
    ++count_;
  }

 private:
  bool hit(const OpRecord& record) const { return count_ == mutant_->op && mutant_->tensor < record.tensors.size(); }

  // Puts the input back, save where the operation wrote its outputs over it.
  void restore(const OpRecord& record, const Tensor& target) {
    Bytes bytes(target);
    for (const OpTensor& other : record.tensors) {
      if (other.access != Access::in) bytes.remove(other.tensor);
    }
    char* begin = Extent(target).begin;
    for (size_t i = 0; i < saved_.size(); ++i) {
      if (bytes.holds(begin + i)) begin[i] = saved_[i];
    }
  }

  std::optional<Mutant> mutant_;
  uint64_t seed_;
  OutputPoison poison_;
  std::vector<OpRecord> trace_;
  std::vector<char> saved_;
  int count_ = 0;
  bool changed_ = false;
};

// What there is to break in a program.
std::vector<Mutant> list_mutants(const std::vector<OpRecord>& trace) {
  std::vector<Mutant> mutants;
  for (size_t op = 0; op < trace.size(); ++op) {
    for (size_t i = 0; i < trace[op].tensors.size(); ++i) {
      const auto& [tensor_name, tensor, access] = trace[op].tensors[i];
      if (tensor.numel() == 0) continue;
      const bool number = is_float(tensor.dtype());
      const auto add = [&](Kind kind) { mutants.push_back({static_cast<int>(op), i, kind}); };
      if (access == Access::in) {
        add(Kind::zero_input);
        continue;
      }
      add(Kind::zero);
      add(Kind::drop_row);
      if (number) add(Kind::negate);
      if (number) add(Kind::scale);
      if (access == Access::update) add(Kind::assign);
    }
  }
  return mutants;
}

class Harness {
 public:
  Harness(const ObservedRun& run, const MutationOptions& options) : run_(run), options_(options) {}

  MutationReport go() {
    Mutator counter(std::nullopt, options_.seed);
    expected_ = run_(counter);
    trace_ = counter.trace();
    report_.ops = static_cast<int>(trace_.size());
    const std::vector<Mutant> mutants = list_mutants(trace_);
    for (size_t i = 0; i < mutants.size(); i += static_cast<size_t>(options_.every)) {
      const Mutant& mutant = mutants[i];
      const std::optional<bool> noticed = differs(mutant);
      if (!noticed) continue;
      ++report_.mutants;
      if (*noticed) {
        ++report_.caught;
      } else {
        explain(mutant);
      }
    }
    Mutator again(std::nullopt, options_.seed);
    if (differ(run_(again))) report_.survivors.push_back("the program itself: a second run gives other results");
    return report_;
  }

 private:
  const OpTensor& target(const Mutant& mutant) const {
    return trace_[static_cast<size_t>(mutant.op)].tensors[mutant.tensor];
  }

  std::string place(const Mutant& mutant) const {
    return fmt::format("{} {}.{}", mutant.op, trace_[static_cast<size_t>(mutant.op)].name, target(mutant).name);
  }

  bool differ(const std::vector<Result>& results) const {
    if (results.size() != expected_.size()) return true;
    for (size_t i = 0; i < results.size(); ++i) {
      if (results[i].values.size() != expected_[i].values.size()) return true;
      if (!(difference(results[i].values, expected_[i].values, 1).global <= options_.threshold)) return true;
    }
    return false;
  }

  // Whether the mutant's results differ; nothing if it changed no bit.
  std::optional<bool> differs(const Mutant& mutant) const {
    Mutator mutator(mutant, options_.seed);
    try {
      const std::vector<Result> results = run_(mutator);
      if (!mutator.changed()) return std::nullopt;
      return differ(results);
    } catch (const std::exception&) {
      return true;
    }
  }

  // No later operation reads the output before it is overwritten, and it is no result.
  bool never_read(int op, const OpTensor& output) const {
    Bytes live(output.tensor);
    for (size_t later = static_cast<size_t>(op) + 1; later < trace_.size(); ++later) {
      for (const OpTensor& t : trace_[later].tensors) {
        if (t.access != Access::out && live.overlaps(t.tensor)) return false;
      }
      for (const OpTensor& t : trace_[later].tensors) {
        if (t.access == Access::out) live.remove(t.tensor);
      }
      if (live.empty()) return true;
    }
    return std::none_of(expected_.begin(), expected_.end(), [&](const Result& r) { return live.overlaps(r.tensor); });
  }

  bool unused(int op, size_t tensor) const {
    const OpTensor& output = trace_[static_cast<size_t>(op)].tensors[tensor];
    return output.access != Access::in && never_read(op, output) && differs({op, tensor, Kind::poison}) == false;
  }

  void explain(const Mutant& mutant) {
    const OpRecord& record = trace_[static_cast<size_t>(mutant.op)];
    const OpTensor& mutated = target(mutant);
    bool all_unused = true;
    for (size_t i = 0; i < record.tensors.size(); ++i) {
      all_unused = all_unused && (record.tensors[i].access == Access::in || unused(mutant.op, i));
    }
    if (mutated.access == Access::in && all_unused) {
      list_unused(fmt::format("{}: no output of this operation is used", place(mutant)));
      return;
    }
    if (mutated.access != Access::in && unused(mutant.op, mutant.tensor)) {
      list_unused(fmt::format("{}: no later operation reads it", place(mutant)));
      return;
    }
    for (const Equivalent& e : options_.equivalent) {
      const auto fits = [](const std::string& pattern, std::string_view name) {
        return pattern.empty() || pattern == name;
      };
      if (fits(e.op, record.name) && fits(e.tensor, mutated.name) && fits(e.mutation, name_of(mutant.kind))) {
        report_.equivalent.push_back(fmt::format("{} {}: {}", place(mutant), name_of(mutant.kind), e.reason));
        return;
      }
    }
    report_.survivors.push_back(fmt::format("{} {} ({})", place(mutant), name_of(mutant.kind), mutated.tensor.str()));
  }

  void list_unused(const std::string& line) {
    if (report_.unused.empty() || report_.unused.back() != line) report_.unused.push_back(line);
  }

  const ObservedRun& run_;
  const MutationOptions& options_;
  std::vector<OpRecord> trace_;
  std::vector<Result> expected_;
  MutationReport report_;
};

}  // namespace

void OutputPoison::before(const OpRecord& record) {
  for (const OpTensor& output : record.tensors) {
    if (output.access != Access::out) continue;
    const bool shared = std::any_of(record.tensors.begin(), record.tensors.end(), [&](const OpTensor& other) {
      return other.access != Access::out && overlap(output.tensor, other.tensor);
    });
    if (!shared) poison(output.tensor);
  }
}

std::string MutationReport::str() const {
  std::string text = fmt::format("{} operations, {} mutants, {} caught", ops, mutants, caught);
  for (const std::string& line : unused) text += "\n  unused:     " + line;
  for (const std::string& line : equivalent) text += "\n  equivalent: " + line;
  for (const std::string& line : survivors) text += "\n  SURVIVOR:   " + line;
  return text;
}

MutationReport mutate(const ObservedRun& run, const MutationOptions& options) {
  return Harness(run, options).go();
}

MutationReport expect_no_survivors(const ObservedRun& run, const MutationOptions& options) {
  MutationReport report = mutate(run, options);
  EXPECT_GT(report.mutants, 0) << "nothing was mutated";
  EXPECT_TRUE(report.survivors.empty()) << report.str();
  return report;
}

}  // namespace sluice::test
