#include "launch/first_host.h"

#include <algorithm>
#include <utility>

#include "comm/sockets/contacts.h"

namespace sluice::launch {
namespace {

using State = Correspondent::State;
constexpr size_t kMostBytes = size_t{1} << 16;
// For a letter, which is small, and for a launcher to say that its processes have ended when they must have.
constexpr double kLetter_s = 1, kAnswer_s = 20;

Error given_up() {
  return runtime_failure("the launcher of {} has given up", host_named(0, machine_name()))
      .advise("look at what it says");
}

}  // namespace

FirstHost::FirstHost(const LocalPlan& plan, const LaunchTimes& times, Say say)
    : plan_(plan),
      times_(times),
      say_(std::move(say)),
      listener_(plan.master->port),
      others_(static_cast<size_t>(plan.nodes - 1)) {}

FirstHost::~FirstHost() {
  if (done_) return;
  for (const Other& other : others_) {
    if (other.who) send_letter(other.who->number(), {LetterKind::refusal, to_text(given_up())}, deadline_in(kLetter_s));
  }
}

void FirstHost::watch(std::vector<pollfd>& all) const {
  const auto add = [&](int number) { all.push_back({.fd = number, .events = POLLIN, .revents = 0}); };
  add(listener_.number());
  for (const Correspondent& visitor : visitors_) add(visitor.number());
  for (const Other& other : others_) {
    if (other.who) add(other.who->number());
  }
}

void FirstHost::read() {
  for (;;) {
    SocketAddress from;
    Descriptor socket = accept_one(listener_.number(), from);
    if (socket.number() < 0) break;
    prepare_for_packets(socket.number());
    visitors_.emplace_back(std::move(socket), from);
  }
  std::erase_if(visitors_, [this](Correspondent& visitor) { return !receive(visitor); });
  for (size_t i = 0; i < others_.size(); ++i) hear(i);
  if (!patience_ || std::chrono::steady_clock::now() < *patience_) return;
  for (size_t i = 0; i < others_.size(); ++i) {
    if (others_[i].who && !others_[i].over) lose(i, "does not answer");
  }
  patience_.reset();
}

bool FirstHost::receive(Correspondent& visitor) {
  const State state = visitor.read(kMostBytes);
  if (state == State::waiting) return true;
  if (state == State::foreign) {
    const Error refused = user_error("the launcher of host 0 is of another version of sluice")
                              .advise("install the same build on every host");
    send_letter(visitor.number(), {LetterKind::refusal, to_text(refused)}, deadline_in(kLetter_s));
  }
  if (state != State::complete) return false;
  const Letter letter = visitor.take_letter();
  const std::optional<HostIntroduction> introduction =
      letter.kind == LetterKind::launcher ? host_introduction_of(letter.text) : std::nullopt;
  if (introduction) {
    admit(visitor, *introduction);
  } else if (letter.kind == LetterKind::join) {
    const Error refused = user_error("at port {} launchers meet, and this is a process of a run", listener_.port())
                              .advise("let the launchers start the processes of all hosts");
    send_letter(visitor.number(), {LetterKind::refusal, to_text(refused)}, deadline_in(kLetter_s));
  }
  return false;
}

std::optional<Error> FirstHost::objection(const HostIntroduction& introduction) {
  const std::string who = host_named(introduction.host, introduction.name);
  const auto differ = [&](const char* what, int theirs, int ours) {
    return user_error("the launcher of {} was given {} {}, that of {} {}", who, what, theirs,
                      host_named(0, machine_name()), ours)
        .at("command line")
        .advise("give all launchers the same, and each run a port of its own (--master)");
  };
  if (introduction.hosts != plan_.nodes) return differ("--nnodes", introduction.hosts, plan_.nodes);
  if (introduction.processes != plan_.processes) return differ("--nproc", introduction.processes, plan_.processes);
  if (introduction.restarts != plan_.restarts) return differ("--restarts", introduction.restarts, plan_.restarts);
  const auto twice = [&](const std::string& other) {
    return user_error("two launchers say that they are host {}: that of {} and that of {}", introduction.host, other,
                      introduction.name)
        .at("command line")
        .advise("--node-rank N, from 0 on, another one on each host");
  };
  if (introduction.host <= 0 || introduction.host >= plan_.nodes) return twice(machine_name());
  // One that has ended meanwhile may come again.
  const auto place = static_cast<size_t>(introduction.host - 1);
  hear(place);
  if (others_[place].who) return twice(others_[place].name);
  return std::nullopt;
}

void FirstHost::admit(Correspondent& visitor, const HostIntroduction& introduction) {
  if (const std::optional<Error> error = objection(introduction)) {
    send_letter(visitor.number(), {LetterKind::refusal, to_text(*error)}, deadline_in(kLetter_s));
    // What runs goes on without it.
    if (!running_) throw Error(*error);
    return;
  }
  Other& other = others_[static_cast<size_t>(introduction.host - 1)];
  other.who.emplace(std::move(visitor));
  other.name = introduction.name;
}

void FirstHost::hear(size_t other) {
  for (std::optional<Correspondent>& who = others_[other].who; who;) {
    const State state = who->read(kMostBytes);
    if (state == State::waiting) return;
    if (state != State::complete) return lose(other, "is gone");
    const Letter letter = who->take_letter();
    if (letter.kind == LetterKind::refusal) {
      given_up_ = true;
      if (!running_) throw error_of(letter.text);
      if (others_[other].over) others_[other].over->signalled = true;
      lose(other, "has given up");
      return;
    }
    const std::optional<HostNews> news = letter.kind == LetterKind::launcher ? host_news_of(letter.text) : std::nullopt;
    if (!news) return lose(other, "says what this one does not know");
    take(other, *news);
  }
}

void FirstHost::take(size_t other, const HostNews& news) {
  if (!running_) return;
  if (news.kind == HostNews::Kind::failed) {
    fail(host_of(other), {.code = news.code,
                          .text = fmt::format("{}: {}", host_named(host_of(other), others_[other].name), news.text)});
  } else if (news.kind == HostNews::Kind::over) {
    others_[other].over = Outcome{.code = news.code, .failed = news.failure, .signalled = news.signalled};
  }
}

// Its processes end with it.
void FirstHost::lose(size_t other, const std::string& how) {
  Other& lost = others_[other];
  lost.who.reset();
  if (!running_ || lost.over) return;
  lost.over = Outcome{.code = 1, .failed = true};
  fail(host_of(other),
       {.code = 1, .text = fmt::format("the launcher of {} {}", host_named(host_of(other), lost.name), how)});
}

void FirstHost::fail(int host, const Failure& failure) {
  if (failure_) return;
  failure_.emplace(host, failure);
  patience_ = deadline_in(times_.grace_s + kAnswer_s);
  for (size_t i = 0; i < others_.size(); ++i) {
    if (host_of(i) != host) send(i, {.kind = HostNews::Kind::end, .code = failure.code, .text = failure.text});
  }
}

void FirstHost::send(size_t other, const HostNews& news) {
  const std::optional<Correspondent>& who = others_[other].who;
  if (!who) return;
  // Who cannot be told has ended, which shows by itself.
  send_letter(who->number(), {LetterKind::launcher, to_text(news)}, deadline_in(kLetter_s));
}

void FirstHost::send_all(const HostNews& news) {
  for (size_t i = 0; i < others_.size(); ++i) send(i, news);
}

std::string FirstHost::missing() const {
  std::vector<std::string> hosts;
  for (size_t i = 0; i < others_.size(); ++i) {
    if (!others_[i].who) hosts.push_back(std::to_string(host_of(i)));
  }
  return hosts.empty() ? "" : (hosts.size() == 1 ? "host " : "hosts ") + listed(hosts);
}

Error FirstHost::too_late() const {
  const std::string absent = missing();
  return runtime_failure("the launcher of {} has waited at {} for {:g} s for {} of {}", host_named(0, machine_name()),
                         host_and_port(plan_.master->host, listener_.port()), times_.meeting_s, absent, plan_.nodes)
      .advise("look at what the launchers there say: each is to be started, with this address and its own --node-rank");
}

std::optional<Hosts::Start> FirstHost::start() {
  if (!deadline_) {
    deadline_ = deadline_in(times_.meeting_s);
    waiting_ = ProgressTimer();
  }
  const std::string absent = missing();
  if (!absent.empty()) {
    if (std::chrono::steady_clock::now() >= *deadline_) throw too_late();
    if (waiting_.due()) {
      say_(log::Level::info,
           fmt::format("waits at port {} for the launchers of {} of {}", listener_.port(), absent, plan_.nodes));
    }
    return std::nullopt;
  }
  deadline_.reset();
  running_ = true;
  over_.reset();
  failure_.reset();
  patience_.reset();
  for (Other& other : others_) other.over.reset();
  Listener listener(0);
  const int port = listener.port();
  send_all({.kind = HostNews::Kind::start, .port = port});
  return Start{.master = {.host = plan_.master->host, .port = port}, .listener = std::move(listener)};
}

void FirstHost::tell(const Failure& failure) {
  fail(0, {.code = failure.code, .text = fmt::format("{}: {}", host_named(0, machine_name()), failure.text)});
}

const Hosts::Failure* FirstHost::elsewhere() const {
  return failure_ && failure_->first != 0 ? &failure_->second : nullptr;
}

std::optional<Hosts::Decision> FirstHost::decision() {
  Outcome all = *over_;
  for (const Other& other : others_) {
    if (!other.over) return std::nullopt;
    all.failed |= other.over->failed;
    all.signalled |= other.over->signalled;
  }
  // Where nothing failed and one was ended by a signal, the run was.
  for (const Other& other : others_) {
    if (all.code == 0) all.code = other.over->code;
  }
  if (failure_) all.code = failure_->second.code;
  const bool again = !given_up_ && start_again(plan_, restarts_, all);
  running_ = false;
  done_ = !again;
  restarts_ += again ? 1 : 0;
  send_all({.kind = again ? HostNews::Kind::again : HostNews::Kind::done, .code = all.code});
  return Decision{.again = again, .code = all.code};
}

}  // namespace sluice::launch
