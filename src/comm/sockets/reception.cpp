#include "comm/sockets/reception.h"

#include <poll.h>

#include <utility>

#include "base/log.h"

namespace sluice {

namespace {

constexpr size_t kMostBytes = size_t{1} << 20;  // of an introduction
// Strangers may stay without a word until this many have come; then the first goes.
constexpr size_t kMostPending = 4096;

}  // namespace

Reception::News Reception::next(Deadline deadline, std::span<const int> watched) {
  std::vector<pollfd> polled;
  while (true) {
    polled.clear();
    const auto add = [&](int number) { polled.push_back({.fd = number, .events = POLLIN, .revents = 0}); };
    for (const Correspondent& who : pending_) add(who.number());
    for (const int number : watched) add(number);
    add(listener_.number());
    add(local_.number());
    const size_t pending = pending_.size();
    const int count = ::poll(polled.data(), polled.size(), milliseconds_until(deadline));
    if (count <= 0) {
      if (std::chrono::steady_clock::now() >= deadline) return {};
      continue;
    }
    // From the last, as those that are done with are taken out.
    for (size_t i = pending; i-- > 0;) {
      if (polled[i].revents == 0) continue;
      if (std::optional<Visitor> visitor = read_pending(i)) return {.visitor = std::move(visitor), .watched = {}};
    }
    for (size_t i = 0; i < watched.size(); ++i) {
      if (polled[pending + i].revents != 0) return {.visitor = {}, .watched = i};
    }
    for (size_t i = pending + watched.size(); i < polled.size(); ++i) {
      if (polled[i].revents != 0) accept_from(polled[i].fd);
    }
  }
}

std::optional<Reception::Visitor> Reception::read_pending(size_t i) {
  using State = Correspondent::State;
  const State state = pending_[i].read(kMostBytes);
  if (state == State::waiting) return std::nullopt;
  Correspondent who = std::move(pending_[i]);
  pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(i));
  if (state == State::stranger) ignored(who);
  if (state == State::stranger || state == State::ended) return std::nullopt;
  Letter letter;
  if (state == State::complete) letter = who.take_letter();
  return Visitor{.who = std::move(who), .letter = std::move(letter), .foreign = state == State::foreign};
}

void Reception::accept_from(int listener) {
  SocketAddress from;
  Descriptor socket = accept_one(listener, from);
  if (socket.number() < 0) return;
  if (pending_.size() >= kMostPending) pending_.erase(pending_.begin());
  pending_.emplace_back(std::move(socket), from);
}

void Reception::ignored(const Correspondent& who) {
  if (std::exchange(said_, true)) return;
  const std::string from = who.from().length() > 0 ? who.from().host() : "this machine";
  log::warn("something on {} that is no process of this job connected to port {}: it is ignored, as others will be",
            from, listener_.port());
}

}  // namespace sluice
