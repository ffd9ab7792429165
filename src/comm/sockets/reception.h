// Reception: takes the connections that come to a process, and the first letter of each, many at once: one that says
// nothing keeps nobody waiting. What is no process of sluice is ignored; that it was there is said once.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "comm/sockets/letters.h"

namespace sluice {

class Reception {
 public:
  // The listeners outlive it.
  Reception(const Listener& listener, const LocalListener& local) : listener_(listener), local_(local) {}

  struct Visitor {
    Correspondent who;
    Letter letter;  // empty where it is `foreign`: of another version of letters
    bool foreign = false;
  };
  // What came first: a visitor, or something on the connection watched[i]. Neither: the deadline.
  struct News {
    std::optional<Visitor> visitor;
    std::optional<size_t> watched;
  };
  // Of `watched`, -1 is no connection.
  News next(Deadline deadline, std::span<const int> watched);

  // Says once that somebody came who has no place here.
  void ignored(const Correspondent& who);

 private:
  std::optional<Visitor> read_pending(size_t i);
  void accept_from(int listener);

  const Listener& listener_;
  const LocalListener& local_;
  std::vector<Correspondent> pending_;  // whose letter is not complete, in the order in which they came
  bool said_ = false;
};

}  // namespace sluice
