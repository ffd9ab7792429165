// A small run with all that a run writes, in which calls to the file system kill the program or fail
// (tests/preload/file_calls.cpp). Programs with sanitizers cannot load that library, so these tests are not in their
// builds.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "e2e/program.h"

namespace sluice::test {

inline constexpr const char* kChanges = "create,write,sync,rename,link,remove,mkdir";
inline constexpr int kKilled = 128 + 9;

inline constexpr long kAllLater = std::numeric_limits<long>::max();

// Calls of these kinds: `then` ("kill", "kill-after", an errno) is what happens from the first to the last one, counted
// from 1.
struct Calls {
  std::string kinds;
  long first = 0;
  long last = 0;
  std::string then;
  std::string under = {};  // a name in the run's folder: only this and what is below; empty: all in it
};

// What a run leaves, by name: contents of files, targets of links, steps and losses of logs.
using Left = std::map<std::string, std::string>;
// The names of what is missing, there besides, or another one; empty where there are none.
std::string differences(const Left& left, const Left& expected);

// Two steps, each validated and saved with the hub's layout, the older checkpoint removed; an export at the end.
class RunWithCalls {
 public:
  RunWithCalls();

  Outcome train(const std::vector<std::string>& more = {}) const { return train(Calls{}, more); }
  Outcome train(const Calls& calls, const std::vector<std::string>& more = {}) const;
  // How many calls a run has that begins with what is there now. It runs.
  long count(const std::string& kinds) const;
  Left left() const;
  void remove_all() const;
  // A run that was killed in the save of its second step.
  void leave_half_done();
  std::string path(const std::string& name) const { return folder_.path(name); }

 private:
  Folder folder_, half_done_;
  std::string file_;
};

// Some numbers from 1 to `most`, others in each run of the tests, in rising order.
std::vector<long> some_of(long most, size_t count);
std::vector<long> all_of(long most);

}  // namespace sluice::test
