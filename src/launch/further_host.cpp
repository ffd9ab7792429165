#include "launch/further_host.h"

#include <system_error>
#include <utility>

#include "comm/sockets/contacts.h"

namespace sluice::launch {
namespace {

using State = Correspondent::State;
constexpr size_t kMostBytes = size_t{1} << 16;
// For a letter, and for an attempt to connect: signals are not heard meanwhile.
constexpr double kLetter_s = 1, kAttempt_s = 2, kPause_s = 0.2;
// So much longer than the launcher of host 0 waits: then it has said what is wrong.
constexpr double kGrace_s = 5;

}  // namespace

FurtherHost::~FurtherHost() {
  if (done_ || !who_) return;
  const Error given_up = runtime_failure("the launcher of {} has given up", host_named(plan_.node, machine_name()))
                             .advise("look at what it says");
  send({LetterKind::refusal, to_text(given_up)});
}

std::string FurtherHost::first() const {
  return fmt::format("the launcher of host 0 at {}", host_and_port(plan_.master->host, plan_.master->port));
}

void FurtherHost::watch(std::vector<pollfd>& all) const {
  if (who_) all.push_back({.fd = who_->number(), .events = POLLIN, .revents = 0});
}

void FurtherHost::send(const Letter& letter) const {
  if (who_) send_letter(who_->number(), letter, deadline_in(kLetter_s));
}

void FurtherHost::read() {
  while (who_) {
    const State state = who_->read(kMostBytes);
    if (state == State::waiting) return;
    if (state == State::foreign) {
      throw user_error("{} is of another version of sluice", first()).advise("install the same build on every host");
    }
    if (state != State::complete) return lose();
    const Letter letter = who_->take_letter();
    if (letter.kind == LetterKind::refusal) {
      done_ = true;
      const Error error = error_of(letter.text);
      if (!running_) throw Error(error);
      if (!failure_) failure_ = Failure{.code = 1, .text = error.what()};
      decision_ = Decision{.again = false, .code = failure_->code};
      who_.reset();
      return;
    }
    const std::optional<HostNews> news = letter.kind == LetterKind::launcher ? host_news_of(letter.text) : std::nullopt;
    if (!news) {
      throw user_error("what answers at {} is no launcher of sluice",
                       host_and_port(plan_.master->host, plan_.master->port))
          .advise("--master is the host of --node-rank 0, and a port that is free there");
    }
    take(*news);
  }
}

void FurtherHost::take(const HostNews& news) {
  switch (news.kind) {
    case HostNews::Kind::start:
      port_ = news.port;
      failure_.reset();
      break;
    case HostNews::Kind::end:
      if (!failure_) failure_ = Failure{.code = news.code, .text = news.text};
      break;
    case HostNews::Kind::again:
    case HostNews::Kind::done:
      decision_ = Decision{.again = news.kind == HostNews::Kind::again, .code = news.code};
      break;
    case HostNews::Kind::failed:
    case HostNews::Kind::over:
      break;
  }
}

// The processes of host 0 end with its launcher.
void FurtherHost::lose() {
  who_.reset();
  why_ = "it has closed the connection";
  if (!running_) return port_.reset();
  // After the end of the run it goes.
  if (decision_) return;
  gone_ = true;
  if (!failure_) failure_ = Failure{.code = 1, .text = first() + " is gone"};
}

void FurtherHost::come() {
  if (std::chrono::steady_clock::now() < next_try_) return;
  next_try_ = deadline_in(kPause_s);
  for (const SocketAddress& address : addresses_of(plan_.master->host, plan_.master->port, why_)) {
    Descriptor socket(-1);
    const int code = connect_to(address, deadline_in(kAttempt_s), socket);
    if (code != 0) {
      why_ = std::generic_category().message(code);
      continue;
    }
    prepare_for_packets(socket.number());
    who_.emplace(std::move(socket), address);
    const HostIntroduction self{.host = plan_.node,
                                .hosts = plan_.nodes,
                                .processes = plan_.processes,
                                .restarts = plan_.restarts,
                                .name = machine_name()};
    return send({LetterKind::launcher, to_text(self)});
  }
}

Error FurtherHost::not_found() const {
  const std::string who = host_named(plan_.node, machine_name());
  if (who_) {
    return runtime_failure("the launcher of {} has reached that of host 0, and is not told to start", who)
        .advise("look at what that of host 0 says");
  }
  return runtime_failure("the launcher of {} has not found {} within {:g} s: {}", who, first(), times_.meeting_s, why_)
      .advise("look at what that one says: it is to be started on the host of this name, with the same --master");
}

std::optional<Hosts::Start> FurtherHost::start() {
  if (!deadline_) {
    deadline_ = deadline_in(times_.meeting_s);
    waiting_ = ProgressTimer();
  }
  if (!who_) come();
  if (!who_ && waiting_.due()) say_(log::Level::info, fmt::format("waits for {}: {}", first(), why_));
  // Of processes that were started before this launcher came.
  if (const std::optional<Decision> before = std::exchange(decision_, std::nullopt); before && !before->again) {
    throw runtime_failure("the run has ended with exit code {} before {} could come back to it", before->code,
                          host_named(plan_.node, machine_name()))
        .advise("look at what the launcher of host 0 says");
  }
  if (port_) {
    running_ = true;
    gone_ = false;
    over_.reset();
    deadline_.reset();
    return Start{.master = {.host = plan_.master->host, .port = *std::exchange(port_, std::nullopt)}};
  }
  const Deadline last = who_ ? *deadline_ + std::chrono::duration_cast<Deadline::duration>(
                                                std::chrono::duration<double>(times_.meeting_s + kGrace_s))
                             : *deadline_;
  if (std::chrono::steady_clock::now() >= last) throw not_found();
  return std::nullopt;
}

void FurtherHost::tell(const Failure& failure) {
  send({LetterKind::launcher,
        to_text(HostNews{.kind = HostNews::Kind::failed, .code = failure.code, .text = failure.text})});
}

void FurtherHost::tell_over(const Outcome& outcome) {
  over_ = outcome;
  send({LetterKind::launcher, to_text(HostNews{.kind = HostNews::Kind::over,
                                               .code = outcome.code,
                                               .failure = outcome.failed,
                                               .signalled = outcome.signalled})});
}

std::optional<Hosts::Decision> FurtherHost::decision() {
  if (!decision_ && gone_) {
    const Outcome all{.code = failure_->code, .failed = true, .signalled = over_->signalled};
    decision_ = Decision{.again = start_again(plan_, restarts_, all), .code = all.code};
  }
  if (!decision_) return std::nullopt;
  running_ = false;
  done_ = !decision_->again;
  restarts_ += decision_->again ? 1 : 0;
  return std::exchange(decision_, std::nullopt);
}

}  // namespace sluice::launch
