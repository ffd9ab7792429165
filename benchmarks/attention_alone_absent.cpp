// For builds without CUDA.
#include "attention_alone.h"

namespace sluice {

struct AttentionAlone::State {};
AttentionAlone::AttentionAlone(void* /*stream*/) {}
AttentionAlone::~AttentionAlone() = default;

AloneRun AttentionAlone::plan(const AttentionForward& /*op*/, const Tensor& /*stats*/, const Tensor& /*workspace*/) {
  return {.run = {}, .plan = {}, .why_none = "sluice was built without CUDA"};
}

AloneRun AttentionAlone::plan(const AttentionBackward& /*op*/, const Tensor& /*stats*/, const Tensor& /*workspace*/) {
  return {.run = {}, .plan = {}, .why_none = "sluice was built without CUDA"};
}

}  // namespace sluice
