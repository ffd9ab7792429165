// What launchers tell the processes they start: names and values of the environment, read without changing it.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sluice::launch {

// The value of a name; empty where it is not set.
class Environment {
 public:
  explicit Environment(std::function<std::optional<std::string>(const std::string& name)> values)
      : values_(std::move(values)) {}
  explicit Environment(std::map<std::string, std::string> values);
  // That of this process, as it is when asked.
  static Environment of_process();

  // What is set to nothing is as good as not set: scripts and templates leave such.
  std::optional<std::string> text(const std::string& name) const;
  bool has(const std::string& name) const { return text(name).has_value(); }
  // User error unless the value is a whole number from `least` to `most`.
  std::optional<int> number(const std::string& name, int least, int most) const;

  // "RANK=3 and WORLD_SIZE=4" of those that are set; "LOCAL_RANK and LOCAL_WORLD_SIZE" of those that are not.
  std::string set_of(std::initializer_list<const char*> names) const;
  std::string unset_of(std::initializer_list<const char*> names) const;

 private:
  std::function<std::optional<std::string>(const std::string& name)> values_;
};

inline constexpr int kMostProcesses = 1 << 20;

// Where the processes of a run find process 0.
struct Address {
  std::string host;
  int port = 0;

  bool operator==(const Address&) const = default;
};

// torchrun's, where a host is given without a port.
inline constexpr int kUsualPort = 29500;

// "HOST:PORT", "HOST", "[::1]:29500"; user error that begins with `name`, what the user calls it by.
Address parse_address(const std::string& text, const std::string& name);
// Of the names of a host and its port ("MASTER_ADDR", "MASTER_PORT"); none where no host is set. User error where they
// are no host and no port, or where there is a port alone.
std::optional<Address> address_of(const Environment& environment, const std::string& host, const std::string& port);

// "a", "a and b", "a, b and c".
std::string listed(const std::vector<std::string>& words);

}  // namespace sluice::launch
