#include "comm/inproc/mover.h"

#include <cstring>

#include "comm/reduce.h"

namespace sluice {

namespace {

class HostMover final : public Mover {
 public:
  bool immediate() const override { return true; }
  MarkPtr mark(const Stream& /*stream*/) override { return nullptr; }
  MarkPtr mark() override { return nullptr; }
  void wait(const MarkPtr& /*mark*/) override {}
  void hold(Stream& /*stream*/, const MarkPtr& /*mark*/) override {}
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
  }
  void copy_on(Stream& /*stream*/, void* to, const void* from, size_t bytes) override { copy(to, from, bytes); }
  void reduce(DType dtype, ReduceOp op, std::span<void* const> out, std::span<const void* const> in,
              int64_t n) override {
    reduce_buffers(dtype, op, out, in, n);
  }
};

}  // namespace

std::unique_ptr<Mover> make_host_mover() {
  return std::make_unique<HostMover>();
}

}  // namespace sluice
