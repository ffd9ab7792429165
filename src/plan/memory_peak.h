// Finds out when a step uses the most memory and what holds it. Arenas are as large as their fullest moment; this is
// the moment at which all together are.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trainer/trainer.h"

namespace sluice {

struct MemoryPeak {
  std::string action;  // "F of micro-batch 5 in chunk 7"
  std::string place;   // "layers.3.experts"
  size_t bytes = 0;    // in use in the arenas of activations and scratch
  struct Holder {
    std::string name;  // "experts' input"
    size_t bytes = 0;
  };
  std::vector<Holder> largest;  // the most bytes first; together a little less than `bytes`
};

// Observes a trainer on meta; the trainer outlives it or is not run any more.
class MemoryPeakWatch final : public OpObserver {
 public:
  explicit MemoryPeakWatch(Trainer& trainer) : trainer_(trainer) {}
  void before(const OpRecord& record) override;
  void after(const OpRecord& record) override;
  const MemoryPeak& peak() const { return peak_; }

 private:
  void remember_holders();

  struct Held {
    size_t bytes = 0;
    std::string_view name;
  };
  Trainer& trainer_;
  std::map<uintptr_t, Held> held_;  // tensors by address, the last one written there
  size_t remembered_ = 0;           // the peak whose holders are known
  MemoryPeak peak_;
};

}  // namespace sluice
