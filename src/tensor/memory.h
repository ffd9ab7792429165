// Memory of one rank's device, counted by what it is for. The counts are the ones `plan` predicts and `bench` prints.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

enum class MemoryKind : uint8_t { weights, gradients, optimizer, activations, scratch, communication, checkpoint };
inline constexpr size_t kMemoryKinds = 7;
std::string_view name_of(MemoryKind kind);

// Bytes held now and at the worst moment, in all and by kind.
class MemoryLedger {
 public:
  void add(MemoryKind kind, size_t bytes);
  void remove(MemoryKind kind, size_t bytes);

  size_t current() const { return current_total_; }
  size_t peak() const { return peak_total_; }
  size_t current(MemoryKind kind) const { return current_[static_cast<size_t>(kind)]; }
  // What each kind held when the total was at its peak.
  size_t at_peak(MemoryKind kind) const { return at_peak_[static_cast<size_t>(kind)]; }
  // Allocations so far: unchanged after the first step.
  int64_t allocations() const { return allocations_; }

 private:
  std::array<size_t, kMemoryKinds> current_{};
  std::array<size_t, kMemoryKinds> at_peak_{};
  size_t current_total_ = 0;
  size_t peak_total_ = 0;
  int64_t allocations_ = 0;
};

// Where a device's bytes come from. `allocate` counts, then takes; failure names kind and sizes.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  virtual ~Memory() = default;

  void* allocate(MemoryKind kind, size_t bytes);
  void release(MemoryKind kind, void* data, size_t bytes);
  const MemoryLedger& ledger() const { return ledger_; }
  // False where addresses are only numbers (meta): nothing may be read or written.
  virtual bool real() const = 0;
  // Whether the host may touch it; then debug builds poison it and check sentinels.
  virtual bool host_visible() const { return real(); }

 private:
  virtual void* take(size_t bytes) = 0;
  virtual void give_back(void* data, size_t bytes) = 0;
  MemoryLedger ledger_;
};

// Anonymous pages of this process, huge ones where the kernel grants them, touched on first use.
class HostMemory final : public Memory {
 public:
  bool real() const override { return true; }

 private:
  void* take(size_t bytes) override;
  void give_back(void* data, size_t bytes) override;
};

// Addresses without memory behind them: what a plan allocates.
class MetaMemory final : public Memory {
 public:
  bool real() const override { return false; }

 private:
  void* take(size_t bytes) override;
  void give_back(void* data, size_t bytes) override {
    (void)data;
    (void)bytes;
  }
  uintptr_t next_ = uintptr_t{1} << 46;
};

}  // namespace sluice
