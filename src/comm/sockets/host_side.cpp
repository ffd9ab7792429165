#include "comm/sockets/host_side.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/text.h"

namespace sluice {

namespace {

constexpr size_t kMostBytes = size_t{1} << 20;
// How much longer than the others process 0 waits for them to connect: what they say about it is better.
constexpr double kGrace_s = 5;

const char* const kNumbers = "each process needs a number of its own, from 0 on (RANK, or what the launcher sets)";

}  // namespace

HostSide::HostSide(const Rendezvous& rendezvous, const Member& self, int processes, int world, const Listener& listener,
                   const LocalListener& local)
    : rendezvous_(rendezvous),
      self_(self),
      processes_(processes),
      world_(world),
      listener_(listener),
      local_(local),
      deadline_(deadline_in(rendezvous.timeout_s)),
      reception_(listener, local),
      guests_(static_cast<size_t>(processes - 1)) {}

std::vector<SocketWire::Sockets> HostSide::connect() {
  try {
    gather();
    publish();
    return connect_all();
  } catch (const Error& error) {
    tell_all({LetterKind::refusal, to_text(error)}, deadline_in(1));
    throw;
  }
}

void HostSide::gather() {
  ProgressTimer timer;
  while (!missing().empty()) {
    Reception::News news = reception_.next(std::min(deadline_, deadline_in(1)), numbers());
    if (news.visitor) admit(std::move(*news.visitor));
    // A guest has nothing to say before it is welcomed: it has ended. It may come again.
    if (news.watched) guests_[*news.watched].reset();
    if (!missing().empty() && std::chrono::steady_clock::now() >= deadline_) throw too_late();
    if (timer.due()) {
      log::info("process 0 waits at port {} for {} of {} processes: {}", listener_.port(), missing().size(), processes_,
                format_processes(missing()));
    }
  }
}

void HostSide::admit(Reception::Visitor visitor) {
  if (visitor.foreign) {
    const uint32_t version = visitor.who.version();
    const std::string from = visitor.who.from().host();
    refused_.push_back(std::move(visitor.who));
    throw user_error("a process on {} is of another version of sluice: it says {} where process 0 says {}", from,
                     version, kLetterVersion)
        .advise("install the same build on every host");
  }
  const std::optional<Introduction> introduction =
      visitor.letter.kind == LetterKind::join ? introduction_of(visitor.letter.text) : std::nullopt;
  if (!introduction) return reception_.ignored(visitor.who);
  const Member& member = introduction->member;
  const auto refuse = [&](Error error) {
    refused_.push_back(std::move(visitor.who));
    throw error;
  };
  if (introduction->processes != processes_) {
    refuse(user_error("{} was told that the job has {} processes, process 0 ({}) that it has {}", named(member),
                      introduction->processes, self_.str(), processes_)
               .advise("start all processes of a job with the same number of processes, and each job at a port of its "
                       "own (MASTER_PORT)"));
  }
  if (introduction->world != world_) {
    refuse(
        user_error("{} was told that the job has {} ranks, process 0 ({}) that it has {}", named(member),
                   introduction->world, self_.str(), world_)
            .advise("start all processes of a job with the same number of ranks (WORLD_SIZE), and each job at a port "
                    "of its own (MASTER_PORT)"));
  }
  if (member.process < 0 || member.process >= processes_) {
    refuse(user_error("a process on host {} says that it is process {} of {}", printable_line(member.host),
                      member.process, processes_)
               .advise(kNumbers));
  }
  const Member* twin = member.process == 0 ? &self_ : nullptr;
  if (member.process > 0) {
    std::optional<Guest>& guest = guests_[static_cast<size_t>(member.process - 1)];
    // One that has ended meanwhile may come again.
    if (guest && guest->who.read(kMostBytes) != Correspondent::State::waiting) guest.reset();
    if (guest) twin = &guest->introduction.member;
  }
  if (twin != nullptr) {
    refuse(user_error("process {} is there twice: with {} and with {}", member.process, twin->str(), member.str())
               .advise(kNumbers));
  }
  guests_[static_cast<size_t>(member.process - 1)].emplace(
      Guest{.who = std::move(visitor.who), .introduction = *introduction});
}

void HostSide::publish() {
  directory_.token = random_name();
  directory_.contacts.push_back({.member = self_, .address = "", .port = listener_.port(), .local = local_.name()});
  for (const auto& guest : guests_) {
    const SocketAddress& from = guest->who.from();
    // What came by the loopback is on this machine: others find it where they found process 0.
    directory_.contacts.push_back({.member = guest->introduction.member,
                                   .address = from.loopback() ? "" : from.host(),
                                   .port = guest->introduction.port,
                                   .local = guest->introduction.local});
  }
  std::vector<Member> members;
  for (const Contact& contact : directory_.contacts) members.push_back(contact.member);
  check_members(members, world_);
  tell_all({LetterKind::welcome, to_text(directory_)}, deadline_in(rendezvous_.timeout_s));
}

std::vector<SocketWire::Sockets> HostSide::connect_all() {
  const Deadline deadline = deadline_in(rendezvous_.timeout_s + kGrace_s);
  const MeshPlan plan{.directory = directory_,
                      .process = 0,
                      .zero = {},
                      .local = rendezvous_.local,
                      .deadline = deadline,
                      .watched = [this] { return numbers(); },
                      .look = [this](size_t guest) { hear(guest); }};
  std::vector<SocketWire::Sockets> sockets = connect_mesh(plan, reception_);
  const auto waits_for = [this] {
    std::vector<int> waiting;
    for (size_t i = 0; i < guests_.size(); ++i) {
      if (!guests_[i]->ready) waiting.push_back(static_cast<int>(i) + 1);
    }
    return waiting;
  };
  while (!waits_for().empty()) {
    const Reception::News news = reception_.next(deadline, numbers());
    if (news.watched) hear(*news.watched);
    if (!news.watched && !news.visitor) {
      throw runtime_failure("{} could not connect to all others in time", format_processes(waits_for()))
          .advise("look at what those processes say");
    }
  }
  tell_all({LetterKind::complete, ""}, deadline);
  return sockets;
}

void HostSide::hear(size_t guest) {
  using State = Correspondent::State;
  Guest& g = *guests_[guest];
  const State state = g.who.read(kMostBytes);
  if (state == State::waiting) return;
  if (state != State::complete) {
    throw runtime_failure("{} has ended while the processes connected to each other", named(g.introduction.member))
        .advise("look at what that process says");
  }
  const Letter letter = g.who.take_letter();
  if (letter.kind == LetterKind::refusal) throw error_of(letter.text);
  g.ready = true;
}

void HostSide::tell_all(const Letter& letter, Deadline deadline) {
  for (const auto& guest : guests_) {
    // Who cannot be told has ended, which shows by itself.
    if (guest) send_letter(guest->who.number(), letter, deadline);
  }
  for (const Correspondent& who : refused_) send_letter(who.number(), letter, deadline);
}

std::vector<int> HostSide::numbers() const {
  std::vector<int> numbers;
  for (const auto& guest : guests_) numbers.push_back(guest ? guest->who.number() : -1);
  return numbers;
}

std::vector<int> HostSide::missing() const {
  std::vector<int> missing;
  for (size_t i = 0; i < guests_.size(); ++i) {
    if (!guests_[i]) missing.push_back(static_cast<int>(i) + 1);
  }
  return missing;
}

Error HostSide::too_late() const {
  const std::vector<int> absent = missing();
  const size_t here = static_cast<size_t>(processes_) - absent.size();
  const std::string where = host_and_port(rendezvous_.host, listener_.port());
  std::string hint = "look at what the missing processes say: each must be started, with this address and port";
  std::string why;
  const std::vector<SocketAddress> addresses = addresses_of(rendezvous_.host, listener_.port(), why);
  if (addresses.empty()) {
    hint += fmt::format("; the name {} stands for nothing here: {}", rendezvous_.host, why);
  } else if (addresses[0].loopback()) {
    hint += fmt::format(
        "; {} is {} on this machine, which others cannot reach: where processes run on several hosts "
        "give an address of {} that all of them reach (MASTER_ADDR)",
        rendezvous_.host, addresses[0].host(), self_.host);
  } else if (!addresses[0].here()) {
    hint += fmt::format("; {} is {}, which is no address of {}, where process 0 runs", rendezvous_.host,
                        addresses[0].host(), self_.host);
  }
  return runtime_failure("{} of {} processes {} come to {} within {} s: {} {} missing", here, processes_,
                         here == 1 ? "has" : "have", where, rendezvous_.timeout_s, format_processes(absent),
                         absent.size() == 1 ? "is" : "are")
      .advise(hint);
}

}  // namespace sluice
