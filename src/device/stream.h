// A stream is an order of work on a device; an event is a point in it. On CPU the compute stream is synchronous and
// both are inert; on meta a stream is a clock that operations and collectives advance; on CUDA it carries the handle of
// the device's own stream, which only device and comm look at.
#pragma once

#include <algorithm>

namespace sluice {

class Event;

class Stream {
 public:
  explicit Stream(void* native = nullptr) : native_(native) {}
  // The cudaStream_t; null on other devices.
  void* native() const { return native_; }
  // Virtual seconds since the start (meta only).
  double now() const { return now_; }
  void advance(double seconds) { now_ += seconds; }
  void wait(const Event& event);
  // Nothing later on this stream starts before `time`.
  void wait_until(double time) { now_ = std::max(now_, time); }

 private:
  double now_ = 0;
  void* native_ = nullptr;
};

class Event {
 public:
  void record(const Stream& stream) { time_ = stream.now(); }
  double time() const { return time_; }

 private:
  double time_ = 0;
};

inline void Stream::wait(const Event& event) {
  wait_until(event.time());
}

}  // namespace sluice
