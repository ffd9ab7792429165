// Single-threaded SIMD loops of the optimizer's step, in every form that its state has; the backend runs ranges in the
// pool.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace sluice::cpu {

struct AdamWStep {
  float beta1 = 0;
  float beta2 = 0;
  float new1 = 0;  // 1 - beta1
  float new2 = 0;  // 1 - beta2
  float eps = 0;
  float coupled = 0;    // decay that is added to the gradient, of the weight
  float decoupled = 0;  // learning rate x decay of the weight itself
  float clip = 0;
  float rate = 0;                 // learning rate / bias correction 1
  float inverse_correction2 = 0;  // 1 / bias correction 2
};

// Weights of type W and moments of type M. Of bf16 weights, the step may be their master's, or be rounded at random.
template <class W, class M>
struct AdamWRange {
  W* w = nullptr;
  float* master = nullptr;  // or null
  M* m = nullptr;
  M* v = nullptr;
  const float* g = nullptr;
  const uint16_t* random = nullptr;  // 16 bits for each weight, or null
};
template <class W, class M>
void adamw(const AdamWStep& step, const AdamWRange<W, M>& range, int64_t n);

// The bits that sluice::rounding_bits gives for blocks [first, first + count), eight numbers each.
void rounding_bits(uint16_t* bits, uint64_t key, uint64_t step, int64_t first, int64_t count);

}  // namespace sluice::cpu
