// Mover: how ranks that are threads move data out of each other's buffers. On the host everything is done when a call
// returns. On a GPU calls are put on a stream of the mover's own, and marks, which ranks hand each other, say what
// must end before what; no call waits for the GPU.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "comm/communicator.h"

namespace sluice {

// A point in the order of a device's work.
class Mark {
 public:
  Mark() = default;
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  virtual ~Mark() = default;
};
// Null: reached already.
using MarkPtr = std::shared_ptr<const Mark>;

// A communicator of one rank has one and uses it on one thread at a time; mark(stream), hold and copy_on only touch the
// stream they are given and may be called on another thread at the same time.
class Mover {
 public:
  Mover() = default;
  Mover(const Mover&) = delete;
  Mover& operator=(const Mover&) = delete;
  virtual ~Mover() = default;

  // Whether a call is over when it returns: marks are null, and any mover can move for any rank.
  virtual bool immediate() const { return false; }
  // Everything that was put on `stream`, or on this mover, so far.
  virtual MarkPtr mark(const Stream& stream) = 0;
  virtual MarkPtr mark() = 0;
  // What comes next on this mover, or on `stream`, begins after the mark.
  virtual void wait(const MarkPtr& mark) = 0;
  virtual void hold(Stream& stream, const MarkPtr& mark) = 0;

  // Buffers may be the same, else they do not overlap.
  virtual void copy(void* to, const void* from, size_t bytes) = 0;
  virtual void copy_on(Stream& stream, void* to, const void* from, size_t bytes) = 0;
  // Each of `out` = the sum or maximum of `in`, elementwise, as reduce_buffers does it.
  virtual void reduce(DType dtype, ReduceOp op, std::span<void* const> out, std::span<const void* const> in,
                      int64_t n) = 0;
};

std::unique_ptr<Mover> make_host_mover();

// Makes a mover for a rank of the world, on the rank's thread.
using MoverFactory = std::function<std::unique_ptr<Mover>(int world_rank)>;

}  // namespace sluice
