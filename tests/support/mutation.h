// The mutation harness: proves that a test can fail. It runs a program once for every way of breaking one tensor of one
// of its operations, and demands that the results differ each time.
//   outputs of an operation, after it:  zero, negate, scale by 1.01, drop one row; for `+=` also `=` (the tensor is
//                                       zeroed before the operation)
//   inputs of an operation:             zero, for that operation alone (restored after it)
//   integers:                           zero, and one row set to -1
// A mutant that changes no bit is not run; "drop one row" takes a row that holds something. An exception counts as a
// difference. A mutant without effect is a survivor and fails the test, unless
//   - the tensor is proven unused: no later operation reads it before it is overwritten, it is no result, and filling
//     it with NaN changes nothing either; or it is an input of an operation whose outputs are all unused;
//   - it is declared equivalent, with the reason.
// Both are listed in the report.
//
// The harness needs only a function that runs the program with an observer on every Context it uses (one thread) and
// returns what the test checks. Outputs are poisoned before every operation, so that one that reads what it should only
// write shows as well.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "device/backend.h"

namespace sluice::test {

// One thing the test checks: its values, and where they lay at the end of the run if they still do.
struct Result {
  std::string name;
  std::vector<double> values;
  Tensor tensor;
};

using ObservedRun = std::function<std::vector<Result>(OpObserver& observer)>;

// Mutants that compute the same thing: "rope_table", "cos_sin", "negate", "q and k turn together". An empty field
// stands for any.
struct Equivalent {
  std::string op;
  std::string tensor;
  std::string mutation;
  std::string reason;
};

struct MutationOptions {
  // Results differ if an error is above this share of a result's largest value: what the test would notice.
  double threshold = 1e-5;
  uint64_t seed = 1;
  int every = 1;  // runs every n-th mutant only, where there are thousands
  std::vector<Equivalent> equivalent;
};

struct MutationReport {
  int ops = 0;      // operations in one run
  int mutants = 0;  // runs
  int caught = 0;
  std::vector<std::string> unused;      // "3 rmsnorm_forward.rstd: no later operation reads it"
  std::vector<std::string> equivalent;  // "0 rope_table.cos_sin negate: q and k turn together"
  std::vector<std::string> survivors;   // "5 gemm.c scale 1.01"
  std::string str() const;
};

MutationReport mutate(const ObservedRun& run, const MutationOptions& options = {});

// Runs the harness and fails the test for every survivor, and if nothing was mutated.
MutationReport expect_no_survivors(const ObservedRun& run, const MutationOptions& options = {});

// Fills what an operation will write whole with NaN, unless it shares memory with what the operation reads.
class OutputPoison final : public OpObserver {
 public:
  void before(const OpRecord& record) override;
};

}  // namespace sluice::test
