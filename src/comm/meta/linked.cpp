#include "comm/meta/linked.h"

#include <algorithm>

namespace sluice {

void Channel::send(Job& job, double arrival, std::string tensor) {
  const Job::Lock lock = job.lock();
  messages_[sent_++] = {arrival, std::move(tensor)};
  changed_.notify_all();
}

int64_t Channel::expect(Job& job) {
  const Job::Lock lock = job.lock();
  return expected_++;
}

double Channel::take(Job& job, int64_t number, int rank, int from, const CallName& call, const std::string& tensor) {
  Job::Lock lock = job.lock();
  job.wait(
      lock, changed_, rank, call, [&] { return messages_.contains(number); }, [&] { return std::vector<int>{from}; });
  const Message message = messages_.extract(number).mapped();
  if (message.tensor != tensor) {
    const Error error(ErrorKind::internal,
                      fmt::format("rank {} and rank {} do not agree in {}: {} was sent, {} is expected", from, rank,
                                  call.str(), message.tensor, tensor));
    job.fail_with(lock, rank, error);
  }
  return message.arrival;
}

Meeting::Meeting(const std::vector<int>& ranks) {
  for (const int rank : ranks) issued_[rank] = 0;
}

int64_t Meeting::issue(Job& job, int rank, const CallName& call, double ready, double seconds) {
  Job::Lock lock = job.lock();
  const int64_t number = issued_.at(rank)++;
  Round& round = rounds_[number];
  if (round.issued == 0) {
    round.first = rank;
    round.call = call;
  } else if (round.call != call) {
    const Error error(ErrorKind::internal,
                      fmt::format("rank {} and rank {} do not agree on axis {}: rank {} is in {}, rank {} in {}",
                                  round.first, rank, call.axis, round.first, round.call.str(), rank, call.str()));
    job.fail_with(lock, rank, error);
  }
  round.ready = std::max(round.ready, ready);
  round.seconds = std::max(round.seconds, seconds);
  if (++round.issued == issued_.size()) {
    // Rounds fill up in their order, for every member issues in that order.
    end_ = round.end = std::max(end_, round.ready) + round.seconds;
    changed_.notify_all();
  }
  return number;
}

Meeting::End Meeting::take(Job& job, int64_t number, int rank, const CallName& call) {
  Job::Lock lock = job.lock();
  Round& round = rounds_.at(number);
  job.wait(
      lock, changed_, rank, call, [&] { return round.issued == issued_.size(); },
      [&] {
        std::vector<int> missing;
        for (const auto& [member, count] : issued_) {
          if (count <= number) missing.push_back(member);
        }
        return missing;
      });
  const End end{round.end, round.seconds};
  if (++round.taken == issued_.size()) rounds_.erase(number);
  return end;
}

}  // namespace sluice
