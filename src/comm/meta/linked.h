// What simulated ranks that are linked (threads of one job) tell each other: times. Issuing never blocks; the end of a
// call is known, and waited for, when the ranks it depends on have issued theirs. Virtual times depend on what was
// issued alone, never on the threads.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "comm/job.h"

namespace sluice {

// Messages from one rank to another with one tag; the n-th receive takes the n-th message.
class Channel {
 public:
  void send(double arrival, std::string tensor);
  // The number of a receive, in the order they are issued.
  int64_t expect();
  // When message `number` arrives; throws if it is not like `tensor` ("f32[4, 8]").
  double take(Job& job, int64_t number, int rank, int from, const CallName& call, const std::string& tensor);

 private:
  struct Message {
    double arrival;
    std::string tensor;
  };
  std::mutex mutex_;
  std::map<int64_t, Message> messages_;
  int64_t sent_ = 0;
  int64_t expected_ = 0;
  Bell changed_;
};

// The collectives of one group: each starts when its last linked member is ready and the one before it has ended, and
// takes as long as the slowest member's.
class Meeting {
 public:
  // `ranks`: the linked members.
  explicit Meeting(const std::vector<int>& ranks);

  // This rank's part in its next collective; returns the collective's number. Throws if the others issue another one.
  int64_t issue(Job& job, int rank, const CallName& call, double ready, double seconds);
  struct End {
    double time;
    double seconds;
  };
  End take(Job& job, int64_t number, int rank, const CallName& call);

 private:
  struct Round {
    int first = 0;  // the rank that issued it first
    CallName call;
    size_t issued = 0;
    size_t taken = 0;
    double ready = 0;
    double seconds = 0;
    double end = 0;
  };
  std::mutex mutex_;
  std::map<int, int64_t> issued_;  // collectives of each linked member
  std::map<int64_t, Round> rounds_;
  double end_ = 0;
  Bell changed_;
};

}  // namespace sluice
