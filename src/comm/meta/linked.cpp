#include "comm/meta/linked.h"

#include <algorithm>

namespace sluice {

void Channel::send(double arrival, std::string tensor) {
  {
    const std::lock_guard guard(mutex_);
    messages_[sent_++] = {arrival, std::move(tensor)};
  }
  changed_.ring();
}

int64_t Channel::expect() {
  const std::lock_guard guard(mutex_);
  return expected_++;
}

double Channel::take(Job& job, int64_t number, int rank, int from, const CallName& call, const std::string& tensor) {
  const auto arrived = [&] {
    const std::lock_guard guard(mutex_);
    return messages_.contains(number);
  };
  job.wait({job, rank, call, changed_}, arrived, [&] { return std::vector<int>{from}; });
  const std::lock_guard guard(mutex_);
  const Message message = messages_.extract(number).mapped();
  if (message.tensor != tensor) {
    const Error error(ErrorKind::internal,
                      fmt::format("rank {} and rank {} do not agree in {}: {} was sent, {} is expected", from, rank,
                                  call.str(), message.tensor, tensor));
    job.fail_with(rank, error);
  }
  return message.arrival;
}

Meeting::Meeting(const std::vector<int>& ranks) {
  for (const int rank : ranks) issued_[rank] = 0;
}

int64_t Meeting::issue(Job& job, int rank, const CallName& call, double ready, double seconds) {
  const std::lock_guard guard(mutex_);
  const int64_t number = issued_.at(rank)++;
  Round& round = rounds_[number];
  if (round.issued == 0) {
    round.first = rank;
    round.call = call;
  } else if (round.call != call) {
    const Error error(ErrorKind::internal,
                      fmt::format("rank {} and rank {} do not agree on axis {}: rank {} is in {}, rank {} in {}",
                                  round.first, rank, call.axis, round.first, round.call.str(), rank, call.str()));
    job.fail_with(rank, error);
  }
  round.ready = std::max(round.ready, ready);
  round.seconds = std::max(round.seconds, seconds);
  if (++round.issued == issued_.size()) {
    // Rounds fill up in their order, for every member issues in that order.
    end_ = round.end = std::max(end_, round.ready) + round.seconds;
    changed_.ring();
  }
  return number;
}

Meeting::End Meeting::take(Job& job, int64_t number, int rank, const CallName& call) {
  const auto complete = [&] {
    const std::lock_guard guard(mutex_);
    return rounds_.at(number).issued == issued_.size();
  };
  const auto missing = [&] {
    const std::lock_guard guard(mutex_);
    std::vector<int> list;
    for (const auto& [member, count] : issued_) {
      if (count <= number) list.push_back(member);
    }
    return list;
  };
  job.wait({job, rank, call, changed_}, complete, missing);
  const std::lock_guard guard(mutex_);
  Round& round = rounds_.at(number);
  const End end{round.end, round.seconds};
  if (++round.taken == issued_.size()) rounds_.erase(number);
  return end;
}

}  // namespace sluice
