#include "comm/processes/courier.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/thread_signals.h"

namespace sluice {
namespace {

using Clock = Bell::Clock;

constexpr size_t kMostSmallBytes = size_t{16} << 10;
constexpr uint32_t kMostBulkId = uint32_t{1} << 30;
// How long others are waited for where nothing of theirs is needed any more.
constexpr std::chrono::seconds kAnswerTime{2}, kGoodbyeTime{5}, kGoodbyeTimeAfterFailure{1};

// How an answer begins to say what a rank waits in.
std::string is_waiting(int rank, const std::string& host) {
  return fmt::format("rank {} on host {} is waiting in ", rank, host);
}

Clock::time_point after_seconds(double seconds) {
  constexpr double kMost = 1e8;
  return Clock::now() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::min(seconds, kMost)));
}

}  // namespace

struct Courier::Arrival {
  Contents contents;
  int process = 0;
  std::variant<std::vector<std::byte>,  // a small one's data
               uint32_t,                // an offer
               MessagePtr>              // of a rank of this process
      source;
};

Courier::Courier(std::unique_ptr<Wire> wire, std::vector<Member> members, double timeout_s)
    : wire_(std::move(wire)),
      members_(std::move(members)),
      process_(wire_->process()),
      timeout_s_(timeout_s),
      peers_(members_.size()) {
  for (const Member& member : members_)
    process_of_.insert(process_of_.end(), static_cast<size_t>(member.ranks), member.process);
  thread_ = std::thread([this] {
    block_signals();
    loop();
  });
}

Courier::~Courier() {
  post_to_all(packets::Goodbye{});
  const auto deadline = [&] {
    const std::lock_guard guard(mutex_);
    return Clock::now() + (failed_here_ || failure_ ? kGoodbyeTimeAfterFailure : kGoodbyeTime);
  }();
  const auto all_said = [&] {
    const std::lock_guard guard(mutex_);
    return std::ranges::all_of(members_, [&](const Member& each) {
      const Peer& peer = peers_[static_cast<size_t>(each.process)];
      return each.process == process_ || peer.goodbye || peer.lost;
    });
  };
  for (uint32_t heard = bell_.count(); !all_said() && Clock::now() < deadline; heard = bell_.count()) {
    bell_.sleep(heard, deadline);
  }
  {
    const std::lock_guard guard(mutex_);
    stop_ = true;
  }
  wire_->wake();
  thread_.join();
}

void Courier::loop() {
  constexpr std::chrono::milliseconds kMoment{500};
  while (true) {
    std::vector<std::function<void()>> todo;
    bool waited = false;
    {
      const std::lock_guard guard(mutex_);
      todo.swap(outbox_);
      if (todo.empty() && stop_) return;
      waited = waited_for();
    }
    for (const auto& action : todo) action();
    wire_->progress(*this, todo.empty() ? Clock::now() + kMoment : Clock::now(), waited);
  }
}

bool Courier::waited_for() const {
  return !posted_.empty() || !offers_.empty() || !outgoing_.empty() || !incoming_.empty();
}

void Courier::post(int process, const packets::Packet& packet) {
  {
    const std::lock_guard guard(mutex_);
    outbox_.emplace_back([this, process, bytes = packets::encode(packet)] {
      wire_->send_packet(process, std::as_bytes(std::span(bytes)));
    });
  }
  wire_->wake();
}

void Courier::post_to_all(const packets::Packet& packet) {
  for (const Member& member : members_) {
    if (member.process != process_) post(member.process, packet);
  }
}

std::vector<std::string> Courier::exchange(const std::string& text) {
  post_to_all(packets::Text{text});
  std::vector<std::string> texts(members_.size());
  const auto deadline = after_seconds(timeout_s_);
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i].process == process_) {
      texts[i] = text;
      continue;
    }
    for (uint32_t heard = bell_.count();; heard = bell_.count()) {
      {
        const std::lock_guard guard(mutex_);
        Peer& peer = peers_[i];
        if (!peer.texts.empty()) {
          texts[i] = std::move(peer.texts.front());
          peer.texts.pop_front();
          break;
        }
        if (failure_) throw Error(failure_->second);
        if (peer.goodbye || peer.lost) throw runtime_failure("{} has ended", members_[i].str());
      }
      if (Clock::now() >= deadline) {
        throw runtime_failure("{} has said nothing for {:.0f} s", members_[i].str(), timeout_s_);
      }
      bell_.sleep(heard, deadline);
    }
  }
  return texts;
}

int Courier::serve(Job* job) {
  const std::lock_guard job_guard(job_mutex_);
  job_ = job;
  std::optional<std::pair<int, Error>> failure;
  int number = 0;
  {
    const std::lock_guard guard(mutex_);
    if (job != nullptr) ++job_number_;
    number = job_number_;
    failure = failure_;
  }
  if (job != nullptr && failure) job->fail_elsewhere(failure->first, failure->second);
  return number;
}

bool Courier::failed_elsewhere() const {
  const std::lock_guard guard(mutex_);
  return failure_.has_value() && !failed_here_;
}

bool Courier::first_alive() const {
  const std::lock_guard guard(mutex_);
  return std::all_of(peers_.begin(), peers_.begin() + process_, [](const Peer& peer) { return peer.lost; });
}

// Of another process.
void Courier::fail(int rank, const Error& cause) {
  const std::lock_guard job_guard(job_mutex_);
  {
    const std::lock_guard guard(mutex_);
    if (!failure_) failure_.emplace(rank, cause);
  }
  if (job_ != nullptr) job_->fail_elsewhere(rank, cause);
  bell_.ring();
}

MessagePtr Courier::take_posted(const Address& address) {
  const auto found = posted_.find(address);
  if (found == posted_.end()) return nullptr;
  MessagePtr message = std::move(found->second.front());
  found->second.pop_front();
  if (found->second.empty()) posted_.erase(found);
  message->state.store(Message::State::moving);
  return message;
}

void Courier::send(const MessagePtr& message) {
  const Address& address = message->address;
  const int to = process_of(address.to);
  if (to != process_) {
    const size_t most = std::min(kMostSmallBytes, packets::most_small_bytes(message->contents));
    if (message->contents.bytes <= most) {
      post(to, packets::Small{address, message->contents, message->bytes()});
      return message->finish();
    }
    packets::Offer offer{.address = address, .contents = message->contents};
    {
      const std::lock_guard guard(mutex_);
      offer.offer = next_offer_++;
      offers_.emplace(offer.offer, message);
    }
    return post(to, offer);
  }
  MessagePtr receiver;
  {
    const std::lock_guard guard(mutex_);
    receiver = take_posted(address);
    if (!receiver) {
      arrivals_[address].push_back({.contents = message->contents, .process = process_, .source = message});
      return;
    }
    message->state.store(Message::State::moving);
  }
  copy(*message, *receiver);
}

void Courier::receive(const MessagePtr& message) {
  std::optional<Arrival> arrival;
  bool look_again = false;
  {
    const std::lock_guard guard(mutex_);
    const auto found = arrivals_.find(message->address);
    if (found == arrivals_.end()) {
      look_again = !waited_for() && process_of(message->address.from) != process_;
      posted_[message->address].push_back(message);
    } else {
      arrival.emplace(std::move(found->second.front()));
      found->second.pop_front();
      if (found->second.empty()) arrivals_.erase(found);
      message->state.store(Message::State::moving);
      if (const auto* local = std::get_if<MessagePtr>(&arrival->source)) (*local)->state.store(Message::State::moving);
    }
  }
  if (look_again) wire_->wake();
  if (!arrival) return;
  if (const auto* sender = std::get_if<MessagePtr>(&arrival->source)) return copy(**sender, *message);
  if (!agree(arrival->contents, *message)) return;
  if (const auto* offer = std::get_if<uint32_t>(&arrival->source)) return accept(arrival->process, *offer, message);
  const auto& data = std::get<std::vector<std::byte>>(arrival->source);
  if (!data.empty()) std::memcpy(message->data, data.data(), data.size());
  message->finish();
}

// Between two ranks of this process.
void Courier::copy(Message& from, Message& to) {
  const bool agreed = agree(from.contents, to);
  if (agreed && from.contents.bytes > 0) std::memcpy(to.data, from.data, from.contents.bytes);
  from.finish();
  if (agreed) to.finish();
}

bool Courier::agree(const Contents& sender, Message& receiver) {
  const Contents& mine = receiver.contents;
  if (sender.data == mine.data && sender.bytes == mine.bytes && (!receiver.same_call || sender.call == mine.call)) {
    return true;
  }
  const auto [a, b] = std::minmax(receiver.address.from, receiver.address.to);
  const auto in = [&](int rank) {
    const Contents& contents = rank == receiver.address.from ? sender : mine;
    return fmt::format("rank {} is in {} with {}", rank, contents.call, contents.data);
  };
  // Made before others see it, and left to them: its text is shared by all copies.
  std::exception_ptr failure = std::make_exception_ptr(
      Error(ErrorKind::internal,
            fmt::format("rank {} and rank {} do not agree on axis {}: {}, {}", a, b, receiver.axis, in(a), in(b))));
  {
    const std::lock_guard job_guard(job_mutex_);
    if (job_ != nullptr) job_->fail(receiver.address.to, std::move(failure));
  }
  receiver.failed.store(true);
  receiver.finish();
  return false;
}

void Courier::accept(int process, uint32_t offer, const MessagePtr& message) {
  packets::Accept accept{.offer = offer};
  bool abandoned = false;
  {
    const std::lock_guard guard(mutex_);
    abandoned = abandoned_;
    if (!abandoned) {
      accept.bulk = next_bulk_++ % kMostBulkId;
      incoming_.emplace(BulkKey(process, accept.bulk), message);
      outbox_.emplace_back([this, process, id = accept.bulk, bytes = message->bytes()] {
        if (!abandoned_) wire_->receive_bulk(process, id, bytes);
      });
      outbox_.emplace_back([this, process, bytes = packets::encode(accept)] {
        wire_->send_packet(process, std::as_bytes(std::span(bytes)));
      });
    }
  }
  if (abandoned) {
    message->failed.store(true);
    return message->finish();
  }
  wire_->wake();
}

void Courier::withdraw(Message& message) {
  bool bulk = false;
  {
    const std::lock_guard guard(mutex_);
    const auto is_it = [&](const MessagePtr& each) { return each.get() == &message; };
    if (const auto found = posted_.find(message.address); found != posted_.end()) {
      if (std::erase_if(found->second, is_it) > 0) message.finish();
      if (found->second.empty()) posted_.erase(found);
    }
    if (const auto found = arrivals_.find(message.address); found != arrivals_.end()) {
      const auto of_message = [&](const Arrival& each) {
        const auto* local = std::get_if<MessagePtr>(&each.source);
        return local != nullptr && is_it(*local);
      };
      if (std::erase_if(found->second, of_message) > 0) message.finish();
      if (found->second.empty()) arrivals_.erase(found);
    }
    if (std::erase_if(offers_, [&](const auto& each) { return is_it(each.second); }) > 0) message.finish();
    const auto under_way = [&](const auto& each) { return is_it(each.second); };
    bulk = std::ranges::any_of(incoming_, under_way) || std::ranges::any_of(outgoing_, under_way);
    if (bulk) {
      outbox_.emplace_back([this] {
        wire_->abandon_bulk();
        std::vector<MessagePtr> ended;
        {
          const std::lock_guard inner(mutex_);
          abandoned_ = true;
          for (auto* const list : {&incoming_, &outgoing_}) {
            for (const auto& [key, each] : *list) ended.push_back(each);
            list->clear();
          }
        }
        for (const MessagePtr& each : ended) {
          each->failed.store(true);
          each->finish();
        }
      });
    }
  }
  if (bulk) wire_->wake();
  const std::shared_ptr<Bell> bell = message.bell;
  bell->sleep_until([&] { return message.done(); });
}

// --- what other processes send --------------------------------------------------------------------------------------

void Courier::packet(int from, std::span<const std::byte> bytes) {
  try {
    std::visit([&](const auto& each) { got(from, each); }, packets::decode(bytes));
  } catch (const Error& error) {
    fail(members_[static_cast<size_t>(from)].first_rank, error);
  }
}

void Courier::got(int from, const packets::Small& small) {
  MessagePtr receiver;
  {
    const std::lock_guard guard(mutex_);
    receiver = take_posted(small.address);
    if (!receiver) {
      arrivals_[small.address].push_back({.contents = small.contents,
                                          .process = from,
                                          .source = std::vector<std::byte>(small.data.begin(), small.data.end())});
      return;
    }
  }
  if (!agree(small.contents, *receiver)) return;
  require(small.data.size() == receiver->contents.bytes, "a message of {} bytes came with {}", receiver->contents.bytes,
          small.data.size());
  if (!small.data.empty()) std::memcpy(receiver->data, small.data.data(), small.data.size());
  receiver->finish();
}

void Courier::got(int from, const packets::Offer& offer) {
  MessagePtr receiver;
  {
    const std::lock_guard guard(mutex_);
    receiver = take_posted(offer.address);
    if (!receiver) {
      arrivals_[offer.address].push_back({.contents = offer.contents, .process = from, .source = offer.offer});
      return;
    }
  }
  if (agree(offer.contents, *receiver)) accept(from, offer.offer, receiver);
}

void Courier::got(int from, const packets::Accept& accept) {
  MessagePtr sender;
  {
    const std::lock_guard guard(mutex_);
    const auto found = offers_.find(accept.offer);
    if (found == offers_.end() || abandoned_) return;  // it was withdrawn: the job fails
    sender = found->second;
    sender->state.store(Message::State::moving);
    offers_.erase(found);
    outgoing_.emplace(BulkKey(from, accept.bulk), sender);
  }
  wire_->send_bulk(from, accept.bulk, sender->bytes());
}

void Courier::sent(int to, uint32_t id) {
  moved(outgoing_, {to, id});
}

void Courier::received(int from, uint32_t id) {
  moved(incoming_, {from, id});
}

void Courier::moved(std::map<BulkKey, MessagePtr>& list, const BulkKey& key) {
  MessagePtr message;
  {
    const std::lock_guard guard(mutex_);
    const auto found = list.find(key);
    if (found == list.end()) return;
    message = found->second;
  }
  message->finish();
  bool has_left = false;
  {
    const std::lock_guard guard(mutex_);
    list.erase(key);
    has_left = left_.contains({job_number_, message->peer()});
  }
  if (!has_left) return;
  // From now on it counts: whoever needs more of it has to look again.
  const std::lock_guard job_guard(job_mutex_);
  if (job_ != nullptr) job_->left_elsewhere();
}

void Courier::got(int from, const packets::Failure& failure) {
  const std::string name = fmt::format("rank {}", failure.rank), host = members_[static_cast<size_t>(from)].host;
  const bool named = failure.message.starts_with(name + " wait") || failure.message.starts_with(name + ":");
  const std::string rest = named ? failure.message.substr(name.size()) : ": " + failure.message;
  fail(failure.rank, Error(failure.kind, fmt::format("{} on host {}{}", name, host, rest)));
}

void Courier::got(int /*from*/, const packets::Left& left) {
  const std::lock_guard job_guard(job_mutex_);
  {
    const std::lock_guard guard(mutex_);
    left_.emplace(left.job, left.rank);
  }
  if (job_ != nullptr) job_->left_elsewhere();
}

void Courier::got(int from, const packets::Question& question) {
  post(from, packets::Answer{.number = question.number, .text = whereabouts()});
}

void Courier::got(int /*from*/, const packets::Answer& answer) {
  {
    const std::lock_guard guard(mutex_);
    const auto found = answers_.find(answer.number);
    if (found == answers_.end()) return;
    found->second = answer.text;
  }
  bell_.ring();
}

void Courier::got(int from, const packets::Text& text) {
  {
    const std::lock_guard guard(mutex_);
    peers_[static_cast<size_t>(from)].texts.push_back(text.text);
  }
  bell_.ring();
}

void Courier::got(int from, const packets::Goodbye& /*goodbye*/) {
  {
    const std::lock_guard guard(mutex_);
    peers_[static_cast<size_t>(from)].goodbye = true;
  }
  bell_.ring();
}

void Courier::lost(int process, const std::string& why) {
  const Member& member = members_[static_cast<size_t>(process)];
  bool expected = false;
  {
    const std::lock_guard guard(mutex_);
    Peer& peer = peers_[static_cast<size_t>(process)];
    peer.lost = true;
    expected = peer.goodbye;
  }
  bell_.ring();
  if (!expected) fail(member.first_rank, runtime_failure("{} ended or cannot be reached: {}", member.str(), why));
}

// --- what a job asks and tells ---------------------------------------------------------------------------------------

bool Courier::has_left(int rank) const {
  const std::lock_guard guard(mutex_);
  if (!left_.contains({job_number_, rank})) return false;
  // Data that are on their way, to it or from it, end well: that it has left may be known here before they have ended.
  const auto is_its = [&](const auto& each) { return each.second->peer() == rank; };
  return std::ranges::none_of(incoming_, is_its) && std::ranges::none_of(outgoing_, is_its);
}

Job::Account Courier::account(const std::vector<int>& ranks) {
  std::set<int> processes;
  for (const int rank : ranks) {
    if (!here(rank)) processes.insert(process_of(rank));
  }
  Job::Account account;
  for (const int process : processes) {
    uint32_t number = 0;
    {
      const std::lock_guard guard(mutex_);
      number = next_question_++;
      answers_[number];
    }
    post(process, packets::Question{number});
    const auto deadline = Clock::now() + kAnswerTime;
    const auto answer_so_far = [&] {
      const std::lock_guard guard(mutex_);
      return answers_[number];
    };
    std::optional<std::string> answer;
    for (uint32_t heard = bell_.count(); !(answer = answer_so_far()) && Clock::now() < deadline;
         heard = bell_.count()) {
      bell_.sleep(heard, deadline);
    }
    {
      const std::lock_guard guard(mutex_);
      answers_.erase(number);
    }
    const std::string none = fmt::format("no answer from {}: the process has stopped, or cannot be reached",
                                         members_[static_cast<size_t>(process)].str());
    account.text += (account.text.empty() ? "" : "; ") + answer.value_or(none);
    for (const int rank : ranks) {
      if (process_of(rank) != process) continue;
      account.all_wait =
          account.all_wait && answer && answer->find(is_waiting(rank, host_of(rank))) != std::string::npos;
    }
  }
  return account;
}

// What the ranks of this process do, for others.
std::string Courier::whereabouts() const {
  std::map<int, std::string> waits;
  {
    const std::lock_guard job_guard(job_mutex_);
    if (job_ != nullptr) {
      for (const auto& [rank, call] : job_->waits()) waits.emplace(rank, call);
    }
  }
  std::string text;
  for (int rank = self().first_rank; rank < self().first_rank + self().ranks; ++rank) {
    const auto found = waits.find(rank);
    text += text.empty() ? "" : ", ";
    text += found == waits.end() ? fmt::format("rank {} on host {} computes", rank, self().host)
                                 : is_waiting(rank, self().host) + found->second;
  }
  return text;
}

void Courier::tell_failure(int rank, const Error& cause) {
  {
    const std::lock_guard guard(mutex_);
    failed_here_ = failed_here_ || !failure_;
  }
  post_to_all(packets::Failure{.rank = rank, .kind = cause.kind(), .message = cause.what()});
}

void Courier::tell_left(int rank) {
  int job = 0;
  {
    const std::lock_guard guard(mutex_);
    job = job_number_;
  }
  post_to_all(packets::Left{.job = job, .rank = rank});
}

}  // namespace sluice
