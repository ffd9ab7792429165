// The processes of a job as they introduce themselves to each other before they work together.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace sluice {

struct Member {
  int process = 0;
  std::string host;
  int first_rank = 0;  // of the world; the process's ranks follow each other
  int ranks = 1;
  // What has to be the same everywhere, with its name: ("version", "0.6.1"), ("configuration", "5f3a...").
  std::vector<std::pair<std::string, std::string>> common;

  bool operator==(const Member&) const = default;
  std::string str() const;  // "ranks 4-7 on host b"
};

// One line of text, and back; none for what is no such line.
std::string to_line(const Member& member);
bool from_line(const std::string& line, Member& member);

// User error that names who differs, in what, with both values: ranks that are missing or there twice, a world of
// another size than `world`, anything in `common`. `members` are those of processes 0, 1, ... in this order.
void check_members(const std::vector<Member>& members, int world);

}  // namespace sluice
