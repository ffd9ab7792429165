// What processes tell each other when they meet, as text that reads back as the same or is refused.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "comm/processes/members.h"

namespace sluice {

// How one process comes to process 0.
struct Introduction {
  Member member;
  int processes = 0;  // of the job, as it was told
  int world = 0;
  int port = 0;       // of its listener
  std::string local;  // its name on its own machine

  bool operator==(const Introduction&) const = default;
};

// Where a process is found, as process 0 tells all.
struct Contact {
  Member member;
  std::string address;  // empty: the one by which process 0 is reached
  int port = 0;
  std::string local;

  bool operator==(const Contact&) const = default;
};

struct Directory {
  std::string token;  // random, which only processes of this job know
  std::vector<Contact> contacts;

  bool operator==(const Directory&) const = default;
};

// What opens a connection between two processes, once both know the directory.
struct Pass {
  std::string token;
  int process = 0;
  bool bulk = false;

  bool operator==(const Pass&) const = default;
};

std::string to_text(const Introduction& introduction);
std::string to_text(const Directory& directory);
std::string to_text(const Pass& pass);
std::string to_text(const Error& error);  // without its place in an input, which is another's

std::optional<Introduction> introduction_of(const std::string& text);
std::optional<Directory> directory_of(const std::string& text);
std::optional<Pass> pass_of(const std::string& text);
Error error_of(const std::string& text);

}  // namespace sluice
