#include "comm/processes/exchange.h"

#include <algorithm>
#include <set>
#include <utility>

namespace sluice {

Exchange::Exchange(ProcessWorld& world, uint64_t channel, int rank, CallName call, bool same_call)
    : world_(world), channel_(channel), rank_(rank), call_(std::move(call)), same_call_(same_call) {}

Exchange::~Exchange() {
  for (const MessagePtr& message : messages_) {
    if (!message->done()) world_.courier().withdraw(*message);
  }
}

MessagePtr Exchange::make(int from, int to, int tag, void* data, size_t bytes, const std::string& what) const {
  auto message = std::make_shared<Message>();
  message->address = {.channel = channel_, .from = from, .to = to, .tag = tag};
  message->contents = {.call = call_.str(), .data = what, .bytes = bytes};
  message->same_call = same_call_;
  message->axis = call_.axis;
  message->data = static_cast<std::byte*>(data);
  message->bell = bell_;
  return message;
}

void Exchange::send(int to, int tag, const void* from, size_t bytes, const std::string& data) {
  // A sender's memory is only read.
  const MessagePtr message = make(rank_, to, tag, const_cast<void*>(from), bytes, data);
  message->sends = true;
  messages_.push_back(message);
  world_.courier().send(message);
}

void Exchange::receive(int from, int tag, void* to, size_t bytes, const std::string& data) {
  const MessagePtr message = make(from, rank_, tag, to, bytes, data);
  messages_.push_back(message);
  world_.courier().receive(message);
}

bool Exchange::done() const {
  return std::ranges::all_of(messages_, [](const MessagePtr& message) { return message->done(); });
}

void Exchange::wait() {
  const auto missing = [&] {
    std::set<int> peers;
    for (const MessagePtr& message : messages_) {
      if (!message->done()) peers.insert(message->sends ? message->address.to : message->address.from);
    }
    return std::vector<int>(peers.begin(), peers.end());
  };
  const Job::Waiting waiting(job(), rank_, call_, *bell_);
  job().wait(waiting, [&] { return done(); }, missing);
  const bool failed = std::ranges::any_of(messages_, [](const MessagePtr& message) { return message->failed.load(); });
  if (failed) job().check(rank_, call_);
  messages_.clear();
}

}  // namespace sluice
