#include "tensor/memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace sluice {

std::string_view name_of(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::weights:
      return "weights";
    case MemoryKind::gradients:
      return "gradients";
    case MemoryKind::optimizer:
      return "optimizer";
    case MemoryKind::activations:
      return "activations";
    case MemoryKind::scratch:
      return "scratch";
    case MemoryKind::communication:
      return "communication";
    case MemoryKind::checkpoint:
      return "checkpoint";
  }
  return "?";
}

void MemoryLedger::add(MemoryKind kind, size_t bytes) {
  current_[static_cast<size_t>(kind)] += bytes;
  current_total_ += bytes;
  ++allocations_;
  if (current_total_ > peak_total_) {
    peak_total_ = current_total_;
    at_peak_ = current_;
  }
}

void MemoryLedger::remove(MemoryKind kind, size_t bytes) {
  size_t& held = current_[static_cast<size_t>(kind)];
  require(held >= bytes, "{} bytes of {} released, {} held", bytes, name_of(kind), held);
  held -= bytes;
  current_total_ -= bytes;
}

void* Memory::allocate(MemoryKind kind, size_t bytes) {
  if (bytes == 0) return nullptr;
  void* data = take(bytes);
  if (data == nullptr) {
    throw runtime_failure("out of memory: {} bytes for {} on top of {} held", bytes, name_of(kind), ledger_.current())
        .advise("see where memory goes with `sluice plan`; smaller batches or memory.recompute need less");
  }
  ledger_.add(kind, bytes);
  return data;
}

void Memory::release(MemoryKind kind, void* data, size_t bytes) {
  if (bytes == 0) return;
  ledger_.remove(kind, bytes);
  give_back(data, bytes);
}

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

void* HostMemory::take(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  // Large blocks only: a huge page under a small block would hold more than was asked for.
  if (bytes >= 4 * kHugePage) madvise(data, bytes, MADV_HUGEPAGE);
  return data;
}

void HostMemory::give_back(void* data, size_t bytes) {
  munmap(data, bytes);
}

void* MetaMemory::take(size_t bytes) {
  constexpr size_t kPage = 4096;
  const uintptr_t address = next_;
  next_ += (bytes + kPage - 1) / kPage * kPage;
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr): an address nobody dereferences
}

}  // namespace sluice
