// Rehearsal: operations that libraries carry out, each shape once, before they are needed. At its first call a library
// plans, compiles and loads, and that may wait until the GPU is idle: never, where the GPU is in a collective whose
// other ranks wait for this one.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <set>
#include <vector>

#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice {

class Rehearsal {
 public:
  // Nothing happens where one of the same shapes and constants is there.
  void add(const Gemm& op);
  void add(const AttentionForward& op);
  void add(const AttentionBackward& op);
  size_t size() const { return known_.size(); }

  // Runs each on zeros of its own, and returns when they have ended and their memory is given back.
  void run(Backend& backend, Memory& memory) const;

 private:
  template <class O>
  void keep(std::vector<O>& list, const O& op, std::initializer_list<int64_t> constants);

  std::vector<Gemm> products_;
  std::vector<AttentionForward> forward_;
  std::vector<AttentionBackward> backward_;
  std::set<std::vector<int64_t>> known_;
};

}  // namespace sluice
