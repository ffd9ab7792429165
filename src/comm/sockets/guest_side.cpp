#include "comm/sockets/guest_side.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace sluice {

namespace {

constexpr size_t kMostBytes = size_t{1} << 28;  // of a directory
// Process 0 gives up after its time-out, which began later than this process's may have: so much longer, then it should
// have said so.
constexpr double kGrace_s = 5;
// One of several addresses that does not answer does not take all the time.
constexpr double kMostForOne_s = 5;

}  // namespace

GuestSide::GuestSide(const Rendezvous& rendezvous, Introduction introduction, const Listener& listener,
                     const LocalListener& local)
    : rendezvous_(rendezvous),
      introduction_(std::move(introduction)),
      deadline_(deadline_in(rendezvous.timeout_s)),
      reception_(listener, local) {}

std::vector<SocketWire::Sockets> GuestSide::connect() {
  join();
  return connect_all();
}

void GuestSide::join() {
  std::chrono::milliseconds pause{10};
  bool said = false;
  while (true) {
    const std::vector<SocketAddress> addresses = addresses_of(rendezvous_.host, rendezvous_.port, why_);
    no_address_ = addresses.empty();
    if (no_address_ && !std::exchange(said, true)) {
      // It may be there later: a name server learns of a machine when it has started.
      log::warn("the name {} of process 0's host stands for nothing: {}; it is asked for again, for {} s",
                rendezvous_.host, why_, rendezvous_.timeout_s);
    }
    for (const SocketAddress& address : addresses) {
      if (try_to_join(address)) return;
    }
    if (std::chrono::steady_clock::now() + pause >= deadline_) throw not_found();
    ::poll(nullptr, 0, static_cast<int>(pause.count()));
    pause = std::min(2 * pause, std::chrono::milliseconds{500});
  }
}

bool GuestSide::try_to_join(const SocketAddress& address) {
  using State = Correspondent::State;
  tried_ = address;
  Descriptor socket(-1);
  const int code = connect_to(address, std::min(deadline_, deadline_in(kMostForOne_s)), socket);
  if (code != 0) {
    why_ = std::generic_category().message(code);
    return false;
  }
  prepare_for_packets(socket.number());
  zero_ = Correspondent(std::move(socket), address);
  const Letter letter{LetterKind::join, to_text(introduction_)};
  const Deadline deadline = deadline_in(rendezvous_.timeout_s + kGrace_s);
  const State state =
      send_letter(zero_.number(), letter, deadline) ? zero_.read_until(deadline, kMostBytes) : State::ended;
  if (state == State::ended) {
    why_ = "process 0 closed the connection before it said who else is there";
    return false;
  }
  if (state == State::waiting) {
    throw runtime_failure("{} has reached process 0 at {}, and heard nothing from it within {} s",
                          named(introduction_.member), address.str(), rendezvous_.timeout_s + kGrace_s)
        .advise("look at what process 0 says");
  }
  const std::string hint = "give the port at which process 0 listens (MASTER_PORT), and the same build on every host";
  if (state == State::foreign) {
    throw user_error("process 0 at {} is of another version of sluice: it says {} where this one says {}",
                     address.str(), zero_.version(), kLetterVersion)
        .advise(hint);
  }
  const Letter answer = state == State::complete ? zero_.take_letter() : Letter{.kind = LetterKind::join, .text = {}};
  if (answer.kind == LetterKind::refusal) throw error_of(answer.text);
  const std::optional<Directory> directory =
      answer.kind == LetterKind::welcome ? directory_of(answer.text) : std::nullopt;
  if (!directory || static_cast<int>(directory->contacts.size()) != introduction_.processes) {
    throw user_error("what answers at {} is not process 0 of a job of sluice", address.str()).advise(hint);
  }
  directory_ = *directory;
  return true;
}

Error GuestSide::not_found() const {
  const std::string who = named(introduction_.member);
  if (no_address_) {
    return user_error("{} cannot find process 0: the name {} stands for nothing: {}", who, rendezvous_.host, why_)
        .advise("give the name of process 0's host as this machine knows it, or its address (MASTER_ADDR)");
  }
  const std::string where = host_and_port(rendezvous_.host, rendezvous_.port);
  std::string hint = "look at what process 0 says: it must be started, with this port, on the host of this name";
  if (tried_.loopback()) {
    hint = fmt::format(
        "{} is {} on host {}, which is that machine itself: where process 0 runs on another host give "
        "an address of that one (MASTER_ADDR); else look at what process 0 says",
        rendezvous_.host, tried_.host(), introduction_.member.host);
  }
  return runtime_failure("{} has not found process 0 at {} ({}) within {} s: {}", who, where, tried_.host(),
                         rendezvous_.timeout_s, why_)
      .advise(hint);
}

std::vector<SocketWire::Sockets> GuestSide::connect_all() {
  const MeshPlan plan{.directory = directory_,
                      .process = introduction_.member.process,
                      .zero = zero_.from(),
                      .local = rendezvous_.local,
                      .deadline = deadline_in(rendezvous_.timeout_s),
                      .watched = [this] { return std::vector<int>{zero_.number()}; },
                      .look = [this](size_t /*zero*/) { hear(); }};
  try {
    std::vector<SocketWire::Sockets> sockets = connect_mesh(plan, reception_);
    const Deadline deadline = deadline_in(rendezvous_.timeout_s + 2 * kGrace_s);
    send_letter(zero_.number(), {LetterKind::ready, ""}, deadline);
    if (zero_.read_until(deadline, kMostBytes) == Correspondent::State::waiting) {
      throw runtime_failure("{} heard nothing from process 0 while the processes connected to each other",
                            named(introduction_.member))
          .advise("look at what process 0 says");
    }
    hear();
    return sockets;
  } catch (const Error& error) {
    // Process 0 tells the others.
    send_letter(zero_.number(), {LetterKind::refusal, to_text(error)}, deadline_in(1));
    throw;
  }
}

void GuestSide::hear() {
  using State = Correspondent::State;
  const State state = zero_.read(kMostBytes);
  if (state == State::waiting) return;
  if (state != State::complete) {
    throw runtime_failure("process 0 has ended while the processes connected to each other")
        .advise("look at what process 0 says");
  }
  const Letter letter = zero_.take_letter();
  if (letter.kind == LetterKind::refusal) throw error_of(letter.text);
}

}  // namespace sluice
