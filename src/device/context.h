// Context: what a rank computes with. Modules see it and nothing else of the machine: a backend, a compute stream, and
// four arenas by lifetime, which the runtime binds before each phase:
//   activations()  from a micro-batch's forward to its backward
//   deferred()     what weight gradients need (inputs and output gradients of linears), until they have run
//   records()      what recomputation must not lose: block inputs and routing decisions, until the backward
//   scratch()      until the end of the block's phase
// With recomputation or without deferral some of them are the same arena.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/backend.h"
#include "device/scratch.h"
#include "tensor/arena.h"

namespace sluice {

struct BoundArenas {
  Arena* activations = nullptr;
  Arena* deferred = nullptr;
  Arena* records = nullptr;
  Arena* scratch = nullptr;
};

class Context {
 public:
  // `dtype` is the storage type of activations and parameters.
  Context(Backend& backend, DType dtype) : backend_(backend), dtype_(dtype), compute_(backend.compute_stream()) {}
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Backend& backend() const { return backend_; }
  bool real() const { return backend_.real(); }
  DType dtype() const { return dtype_; }
  DType accumulator() const { return accumulator_of(dtype_); }
  Stream& compute() { return compute_; }

  Arena& activations() const { return bound(arenas_.activations, "activations"); }
  Arena& deferred() const { return bound(arenas_.deferred, "deferred"); }
  Arena& records() const { return bound(arenas_.records, "records"); }
  Arena& scratch() const { return bound(arenas_.scratch, "scratch"); }
  const BoundArenas& arenas() const { return arenas_; }
  void bind(const BoundArenas& arenas) { arenas_ = arenas; }

  // Runs one operation; its scratch comes from scratch() and is gone when it returns.
  template <class O>
  void run(const O& op) {
    const size_t bytes = scratch_of(op, backend_.target());
    if (bytes == 0) {
      backend_.run(op, Tensor(), compute_, observers_);
      return;
    }
    const ArenaScope scope(scratch());
    backend_.run(op, scratch().empty({static_cast<int64_t>(bytes)}, DType::u8), compute_, observers_);
  }

  // The host learns device values only here. Where there are none (meta) `forecast()` answers instead; it returns
  // std::vector<T> with one value per element. Every caller is listed in docs/host_reads.md.
  template <class T, class Forecast>
  std::vector<T> read(const Tensor& t, Forecast&& forecast) const {
    if (!real()) return forecast();
    std::vector<T> values(static_cast<size_t>(t.numel()));
    require(t.dense(), "only dense tensors are read, not {}", t.str());
    require(t.dtype() == DTypeOf<T>::value, "{} is read as {}", t.str(), name_of(DTypeOf<T>::value));
    backend_.read(t, values.data());
    return values;
  }

  template <class T>
  void upload(const Tensor& t, std::span<const T> values) const {
    require(static_cast<int64_t>(values.size()) == t.numel() && t.dense(), "{} values for {}", values.size(), t.str());
    require(t.dtype() == DTypeOf<T>::value, "{} is written as {}", t.str(), name_of(DTypeOf<T>::value));
    if (real()) backend_.write(t, values.data());
  }

  // Says what carried out a part that is no operation of the backend. Where nothing is (meta), nothing did.
  void report(Part part, KernelSet kernels) const {
    if (real()) backend_.kernels().add(part, {}, kernels);
  }

  // For RangeScope.
  Ranges* ranges() const { return backend_.ranges(); }

  // Observers are told of every operation, in the order they were added.
  void add_observer(OpObserver* observer) { observers_.push_back(observer); }
  void remove_observer(OpObserver* observer) { std::erase(observers_, observer); }

  // Where the program is, for messages and profiles: "layers.3.moe".
  std::string place() const;

 private:
  friend class NameScope;
  static Arena& bound(Arena* arena, const char* role) {
    require(arena != nullptr, "no {} arena is bound in this phase", role);
    return *arena;
  }

  Backend& backend_;
  DType dtype_;
  Stream compute_;
  BoundArenas arenas_;
  std::vector<OpObserver*> observers_;
  std::vector<std::string_view> names_;
};

// Adds a name to Context::place() while it lives; `name` must outlive it.
class NameScope {
 public:
  NameScope(Context& ctx, std::string_view name) : ctx_(ctx) { ctx.names_.push_back(name); }
  ~NameScope() { ctx_.names_.pop_back(); }
  NameScope(const NameScope&) = delete;
  NameScope& operator=(const NameScope&) = delete;
  NameScope(NameScope&&) = delete;
  NameScope& operator=(NameScope&&) = delete;

 private:
  Context& ctx_;
};

}  // namespace sluice
