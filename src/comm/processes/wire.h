// Wire: moves bytes between the processes of a job, by sockets or MPI. Courier (courier.h) makes messages between ranks
// of it. All functions but wake() are called by one thread.
//   A packet is small and copied when it is sent; packets from one process to another arrive in their order. Bulk is
// read and written where it is; it may overtake packets and other bulk.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace sluice {

class Wire {
 public:
  static constexpr size_t kMostPacketBytes = size_t{64} << 10;

  // Told what has happened, by progress().
  class Events {
   public:
    Events() = default;
    Events(const Events&) = delete;
    Events& operator=(const Events&) = delete;
    virtual ~Events() = default;
    // `bytes` are valid during the call.
    virtual void packet(int from, std::span<const std::byte> bytes) = 0;
    // The memory of this bulk belongs to the caller again; it is complete.
    virtual void sent(int to, uint32_t id) = 0;
    virtual void received(int from, uint32_t id) = 0;
    // Once for a process that has ended, or cannot be reached any more: nothing comes from it, and what is sent to it
    // is dropped. `why` is the system's reason.
    virtual void lost(int process, const std::string& why) = 0;
  };

  Wire() = default;
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;
  virtual ~Wire() = default;

  virtual int process() const = 0;
  virtual int processes() const = 0;

  // `to` is another process. At most kMostPacketBytes, at least one.
  virtual void send_packet(int to, std::span<const std::byte> bytes) = 0;
  // `id` is chosen by the receiver, which has called receive_bulk() before the sender learns it: unlike all others
  // under way between the two in this direction. Below 2^30; at least one byte.
  virtual void send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) = 0;
  virtual void receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) = 0;

  // Goes on with what is under way, and returns when something has happened, wake() was called, or at `deadline`.
  // `waited_for`: a thread waits for something that other processes do. A wire that can only look again and again does
  // so quickly then, and rarely else.
  virtual void progress(Events& events, std::chrono::steady_clock::time_point deadline, bool waited_for) = 0;
  // Makes progress() return, now or the next time. From any thread.
  virtual void wake() = 0;
  // No memory of bulk is touched any more; packets still go both ways.
  virtual void abandon_bulk() = 0;
};

}  // namespace sluice
