// What is to be written to the launcher's stdout or stderr: whole lines, without ever waiting for a slow reader, since
// signals have to be heard meanwhile.
#pragma once

#include <string>
#include <string_view>

namespace sluice::launch {

class OutputQueue {
 public:
  // `over_line`: on a terminal where process 0 may show a line that is written over, a line of others takes its place.
  OutputQueue(int number, bool over_line) : number_(number), over_line_(over_line) {}

  // `continues`: it may go on with a line that was begun; else such a line ends first.
  void add(std::string_view lines, bool continues);
  // Writes what can be written at once.
  void write_some();
  // Whether nothing waits and a line could be written at once.
  bool ready() const;
  bool empty() const { return pending_.empty(); }
  // So much that its sources should not be read for now; they then wait.
  bool full() const;
  // From now on its sources are read all the same, and what there is no room for is lost.
  void wait_no_longer() { waits_ = false; }
  int number() const { return number_; }
  bool over_line() const { return over_line_; }

  // Whoever read has gone, and what comes is dropped, or some was lost for want of room.
  bool abandoned() const { return abandoned_ || lost_; }
  // 0, or the first error of a write that is not a reader's going: a full disk.
  int error() const { return error_; }

 private:
  int number_;
  bool over_line_;
  bool in_line_ = false;  // what was added last had no end
  bool abandoned_ = false;
  bool waits_ = true;
  bool lost_ = false;
  int error_ = 0;
  std::string pending_;
};

}  // namespace sluice::launch
