// The output of a process as whole lines, each behind a prefix that names the process. Pure: bytes in, text out.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace sluice::launch {

// With a prefix: of a line that was written over ("\r") what a person would see at its end; the last one ends with a
// newline even if it had none. Without: the same bytes, but whole lines at a time.
class LineRelay {
 public:
  explicit LineRelay(std::string prefix) : prefix_(std::move(prefix)) {}

  // What is whole now. A line that does not end is let go in pieces.
  std::string add(std::string_view bytes);
  // Whether bytes are passed on as they are.
  bool exact() const { return prefix_.empty(); }
  // What was left.
  std::string finish();

 private:
  std::string line(std::string_view text) const;

  std::string prefix_;
  std::string pending_;
};

}  // namespace sluice::launch
