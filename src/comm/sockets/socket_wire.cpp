#include "comm/sockets/socket_wire.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <thread>
#include <utility>

#include "comm/sockets/sockets.h"

namespace sluice {

namespace {

constexpr uint32_t kWakeKey = UINT32_MAX;

uint32_t packets_key(int process) {
  return 2 * static_cast<uint32_t>(process);
}
uint32_t bulk_key(int process) {
  return packets_key(process) + 1;
}

Descriptor checked(int number, const char* what) {
  if (number < 0) throw runtime_failure("{}: {}", what, std::generic_category().message(errno));
  return Descriptor(number);
}

uint32_t events_of(const SocketStream& stream, bool writes) {
  return stream.ended() ? 0U : static_cast<uint32_t>(EPOLLIN) | (writes ? static_cast<uint32_t>(EPOLLOUT) : 0U);
}

}  // namespace

SocketWire::SocketWire(int process, std::vector<Sockets> sockets, std::chrono::milliseconds moment)
    : process_(process),
      moment_(moment),
      wake_(checked(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "no eventfd can be made")),
      epoll_(checked(::epoll_create1(EPOLL_CLOEXEC), "no epoll can be made")) {
  uint32_t watched = 0;
  watch_one(wake_.number(), kWakeKey, EPOLLIN, watched);
  for (int p = 0; p < static_cast<int>(sockets.size()); ++p) {
    Sockets& pair = sockets[static_cast<size_t>(p)];
    peers_.emplace_back();
    if (p == process) continue;
    peers_.back().emplace(Connected{
        .packets = PacketLink(std::move(pair.packets)), .bulk = BulkLink(std::move(pair.bulk)), .ending = {}});
    watch(p);
  }
}

SocketWire::~SocketWire() {
  const Deadline deadline = Clock::now() + moment_;
  for (Peer& p : peers_) {
    while (p && p->packets.waiting() && wait_for(p->packets.stream().number(), POLLOUT, deadline)) p->packets.flush();
  }
  std::vector<const SocketStream*> streams;
  for (const Peer& p : peers_) {
    if (p) streams.push_back(&p->packets.stream());
    if (p && !abandoned_) streams.push_back(&p->bulk.stream());
  }
  for (const SocketStream* stream : streams) stream->finish();
  constexpr auto kPause = std::chrono::milliseconds(1);
  for (const SocketStream* stream : streams) {
    while (stream->delivering() && Clock::now() < deadline) std::this_thread::sleep_for(kPause);
  }
}

SocketWire::Peer& SocketWire::peer(int process) {
  require(process >= 0 && process < processes() && process != process_, "process {} of {}, seen from {}", process,
          processes(), process_);
  return peers_[static_cast<size_t>(process)];
}

void SocketWire::send_packet(int to, std::span<const std::byte> bytes) {
  Peer& p = peer(to);
  if (!p) return;
  p->packets.send(bytes);
  watch(to);
}

void SocketWire::send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) {
  Peer& p = peer(to);
  if (!p || abandoned_) return;
  p->bulk.send(id, bytes);
  watch(to);
}

void SocketWire::receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) {
  Peer& p = peer(from);
  if (p && !abandoned_) p->bulk.expect(id, bytes);
}

void SocketWire::abandon_bulk() {
  abandoned_ = true;
  for (int p = 0; p < processes(); ++p) {
    if (!peers_[static_cast<size_t>(p)]) continue;
    peers_[static_cast<size_t>(p)]->bulk.abandon();
    watch(p);
  }
}

void SocketWire::wake() {
  const uint64_t one = 1;
  // It can only fail where the count is full, and then progress() returns anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_.number(), &one, sizeof(one));
}

void SocketWire::watch_one(int number, uint32_t key, uint32_t wanted, uint32_t& watched) const {
  if (wanted == watched) return;
  epoll_event event{.events = wanted, .data = {.u32 = key}};
  const int action = watched == 0 ? EPOLL_CTL_ADD : wanted == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  if (::epoll_ctl(epoll_.number(), action, number, &event) != 0) {
    throw runtime_failure("a connection cannot be watched: {}", std::generic_category().message(errno));
  }
  watched = wanted;
}

// After anything was done with its connections.
void SocketWire::watch(int process) {
  Connected& c = *peers_[static_cast<size_t>(process)];
  const uint32_t bulk = abandoned_ ? 0 : events_of(c.bulk.stream(), c.bulk.waiting());
  watch_one(c.packets.stream().number(), packets_key(process), events_of(c.packets.stream(), c.packets.waiting()),
            c.packets_watched);
  watch_one(c.bulk.stream().number(), bulk_key(process), bulk, c.bulk_watched);
  if (!c.ending && (c.packets.stream().ended() || c.bulk.stream().ended())) {
    c.ending = Clock::now();
    ending_.push_back(process);
  }
}

void SocketWire::progress(Events& events, Clock::time_point deadline, bool /*waited_for*/) {
  happened_ = false;
  bool woken = false;
  do {
    tell_lost(events);
    woken = look(events, happened_ ? Clock::time_point::min() : next_look(deadline));
    tell_lost(events);
  } while (!happened_ && !woken && Clock::now() < deadline);
}

// Packets first: what they say may be that bulk is of no use any more.
bool SocketWire::look(Events& events, Clock::time_point deadline) {
  std::array<epoll_event, 64> ready;
  const int timeout = deadline == Clock::time_point::min() ? 0 : milliseconds_until(deadline);
  const int count = ::epoll_wait(epoll_.number(), ready.data(), ready.size(), timeout);
  if (count < 0 && errno != EINTR) {
    throw runtime_failure("connections cannot be waited for: {}", std::generic_category().message(errno));
  }
  bool woken = false;
  const std::span<const epoll_event> seen(ready.data(), static_cast<size_t>(std::max(count, 0)));
  for (const epoll_event& event : seen) {
    if (event.data.u32 == kWakeKey) {
      uint64_t times = 0;
      woken = ::read(wake_.number(), &times, sizeof(times)) > 0;
    } else if (event.data.u32 % 2 == 0) {
      serve_packets(events, static_cast<int>(event.data.u32 / 2), event.events);
    }
  }
  for (const epoll_event& event : seen) {
    if (event.data.u32 != kWakeKey && event.data.u32 % 2 == 1 && !abandoned_) {
      serve_bulk(events, static_cast<int>(event.data.u32 / 2), event.events);
    }
  }
  return woken;
}

void SocketWire::serve_packets(Events& events, int process, uint32_t ready) {
  PacketLink& link = peers_[static_cast<size_t>(process)]->packets;
  if ((ready & EPOLLOUT) != 0) link.flush();
  if ((ready & ~static_cast<uint32_t>(EPOLLOUT)) != 0) link.read();
  while (const auto packet = link.next()) {
    happened_ = true;
    events.packet(process, *packet);
  }
  watch(process);
}

void SocketWire::serve_bulk(Events& events, int process, uint32_t ready) {
  BulkLink& link = peers_[static_cast<size_t>(process)]->bulk;
  if ((ready & EPOLLOUT) != 0) link.write();
  while (const auto id = link.next_sent()) {
    happened_ = true;
    events.sent(process, *id);
  }
  // What was told may have led to an end of all bulk.
  if ((ready & ~static_cast<uint32_t>(EPOLLOUT)) != 0 && !abandoned_) {
    if (const auto id = link.read()) {
      happened_ = true;
      events.received(process, *id);
    }
  }
  watch(process);
}

bool SocketWire::is_lost(const Connected& connected) const {
  const SocketStream& packets = connected.packets.stream();
  const SocketStream& bulk = connected.bulk.stream();
  if (packets.cut() || bulk.cut()) return true;
  if (packets.ended() && (bulk.ended() || abandoned_)) return true;
  return Clock::now() >= *connected.ending + moment_;
}

void SocketWire::tell_lost(Events& events) {
  std::vector<std::pair<int, std::string>> news;
  std::erase_if(ending_, [&](int process) {
    Peer& p = peers_[static_cast<size_t>(process)];
    if (!is_lost(*p)) return false;
    const SocketStream& packets = p->packets.stream();
    const SocketStream& bulk = p->bulk.stream();
    news.emplace_back(process, bulk.cut() || !packets.ended() ? bulk.why() : packets.why());
    p.reset();
    return true;
  });
  for (const auto& [process, why] : news) {
    happened_ = true;
    events.lost(process, why);
  }
}

SocketWire::Clock::time_point SocketWire::next_look(Clock::time_point deadline) const {
  for (const int process : ending_)
    deadline = std::min(deadline, *peers_[static_cast<size_t>(process)]->ending + moment_);
  return deadline;
}

}  // namespace sluice
