// Backend: what executes operations. The public call is not virtual: it checks, tells the observers, charges, and then
// a private virtual does the work. `ref` is the specification, `cpu` derives from it, `meta` only charges.
#pragma once

#include <functional>
#include <type_traits>
#include <vector>

#include "device/kernel_log.h"
#include "device/ranges.h"
#include "device/stream.h"
#include "device/target.h"
#include "ops/all.h"

namespace sluice {

struct OpTensor {
  std::string_view name;
  Tensor tensor;
  Access access;
};

// One executed operation, as observers see it.
struct OpRecord {
  std::string_view name;
  OpKind kind;
  Cost cost;
  std::vector<OpTensor> tensors;
};

// Watches operations: profilers, mutation tests, poisoning, the search for the first bad value.
class OpObserver {
 public:
  OpObserver() = default;
  OpObserver(const OpObserver&) = delete;
  OpObserver& operator=(const OpObserver&) = delete;
  virtual ~OpObserver() = default;
  virtual void before(const OpRecord& /*record*/) {}
  virtual void after(const OpRecord& /*record*/) {}
};

// What executing an operation tells: of one that belongs to a part, the kernels that carried it out.
template <class O>
using Outcome = std::conditional_t<OfPart<O>, KernelSet, void>;

// One pure virtual per operation of AllOps.
template <class O>
class Executes {
 public:
  virtual ~Executes() = default;

 protected:
  Executes() = default;
  virtual Outcome<O> execute(const O& op, const Tensor& scratch) = 0;
};

template <class List>
class ExecutesAll;
template <class... Ops>
class ExecutesAll<OpList<Ops...>> : public Executes<Ops>... {
 protected:
  using Executes<Ops>::execute...;
};

class Backend : public ExecutesAll<AllOps> {
 public:
  virtual Target target() const = 0;
  virtual std::string_view name() const = 0;
  // False on meta: tensors have no contents, and reads are answered by a forecast.
  virtual bool real() const { return true; }
  // What Context::compute() carries; see Stream::native().
  virtual void* compute_stream() const { return nullptr; }
  // The contents of a dense tensor, once everything run so far has ended; and new contents for it, before anything run
  // later begins (`from` may be dropped after the call).
  virtual void read(const Tensor& t, void* to);
  virtual void write(const Tensor& t, const void* from);
  // Returns when everything run so far has ended: to time it.
  virtual void synchronize() {}
  // `check` is called at the end of every read that waits for a device and throws if what was read may be wrong.
  // Elsewhere nothing calls it.
  virtual void after_reads(std::function<void()> /*check*/) {}
  // What has carried out the parts of the model so far. On meta nothing has.
  KernelLog& kernels() { return kernels_; }
  // For RangeScope; null where no profiler listens.
  Ranges* ranges() const { return ranges_; }
  // Has profilers that wait to be told when to record (cudaProfilerStart).
  virtual bool starts_profilers() const { return false; }
  // They record from here on, or no longer.
  virtual void record_profile(bool /*on*/) {}

  // `scratch` is u8 [scratch_of(op, target())] or undefined; it may hold anything and is anything afterwards.
  template <class O>
  void run(const O& op, const Tensor& scratch, Stream& stream, const std::vector<OpObserver*>& observers) {
    op.check();
    const Cost cost = cost_of(op);
    charge(id_of<O>(), cost, stream);
    if (observers.empty()) {
      carry_out(op, scratch);
      return;
    }
    OpRecord record{O::name, O::kind, cost, {}};
    op.visit([&](std::string_view tensor_name, const Tensor& t, Access access) {
      if (t.defined()) record.tensors.push_back({tensor_name, t, access});
    });
    for (OpObserver* observer : observers) observer->before(record);
    carry_out(op, scratch);
    for (OpObserver* observer : observers) observer->after(record);
  }

 protected:
  // Advances the stream by what the operation takes; only meta does.
  virtual void charge(OpId /*op*/, const Cost& /*cost*/, Stream& /*stream*/) {}
  // After every operation: a device that runs behind the host may wait for it here.
  virtual void executed() {}
  // From here on ranges go there; it outlives the backend's operations.
  void name_ranges_on(Ranges* ranges) { ranges_ = ranges; }

 private:
  template <class O>
  void carry_out(const O& op, const Tensor& scratch) {
    const RangeScope range(ranges_, O::name);
    if constexpr (OfPart<O>) {
      kernels_.add(*part_of(O::kind), mask_of(op), this->execute(op, scratch));
    } else {
      this->execute(op, scratch);
    }
    executed();
  }

  KernelLog kernels_;
  Ranges* ranges_ = nullptr;
};

}  // namespace sluice
