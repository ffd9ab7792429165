// A wire of connected sockets: two to each other process, one for packets and one for bulk, so that a packet never
// waits behind bulk. One thread serves all of them.
//   A process is lost when both its connections have ended and all that came by them has been taken: what it said last
// is heard. Where one has ended and the other has not, it is lost a moment later; at once where the network failed or
// what came makes no sense.
#pragma once

#include <optional>
#include <vector>

#include "comm/processes/wire.h"
#include "comm/sockets/bulk_link.h"
#include "comm/sockets/packet_link.h"

namespace sluice {

class SocketWire final : public Wire {
 public:
  struct Sockets {
    Descriptor packets{-1};
    Descriptor bulk{-1};
  };

  // `sockets`: connected to processes 0, 1, ... in this order; what stands at `process` is not used. `moment`: how long
  // one connection of a process may live on when the other has ended. Both ends are on their way then, unless the
  // network broke one of them.
  SocketWire(int process, std::vector<Sockets> sockets, std::chrono::milliseconds moment = std::chrono::seconds(2));
  // What packets were sent still arrive, as far as the others take them within a moment.
  ~SocketWire() override;
  SocketWire(const SocketWire&) = delete;
  SocketWire& operator=(const SocketWire&) = delete;
  SocketWire(SocketWire&&) = delete;
  SocketWire& operator=(SocketWire&&) = delete;

  int process() const override { return process_; }
  int processes() const override { return static_cast<int>(peers_.size()); }
  void send_packet(int to, std::span<const std::byte> bytes) override;
  void send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) override;
  void receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) override;
  void progress(Events& events, std::chrono::steady_clock::time_point deadline, bool waited_for) override;
  void wake() override;
  // The connections stay open, and what comes by them stays where it is: a peer that has not heard of the failure yet
  // is not told that this process has ended.
  void abandon_bulk() override;

 private:
  using Clock = std::chrono::steady_clock;
  struct Connected {
    PacketLink packets;
    BulkLink bulk;
    // What the system was asked to watch of each.
    uint32_t packets_watched = 0;
    uint32_t bulk_watched = 0;
    std::optional<Clock::time_point> ending;  // since the first of both has ended
  };
  using Peer = std::optional<Connected>;  // none: this process, or one that is lost

  Peer& peer(int process);
  void watch(int process);
  void watch_one(int number, uint32_t key, uint32_t wanted, uint32_t& watched) const;
  bool look(Events& events, Clock::time_point deadline);
  void serve_packets(Events& events, int process, uint32_t ready);
  void serve_bulk(Events& events, int process, uint32_t ready);
  bool is_lost(const Connected& connected) const;
  void tell_lost(Events& events);
  Clock::time_point next_look(Clock::time_point deadline) const;

  const int process_;
  const std::chrono::milliseconds moment_;
  std::vector<Peer> peers_;
  std::vector<int> ending_;  // peers of which something has ended
  Descriptor wake_;
  Descriptor epoll_;
  bool abandoned_ = false;
  bool happened_ = false;  // in this call of progress()
};

}  // namespace sluice
