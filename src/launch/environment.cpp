#include "launch/environment.h"

#include <charconv>
#include <cstdlib>
#include <system_error>

#include "base/error.h"
#include "base/text.h"

namespace sluice::launch {
namespace {

constexpr int kMostPort = 65535;

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

int port_of(std::string_view text, const std::string& shown) {
  const std::optional<int> port = whole_number(text);
  if (port && *port >= 1 && *port <= kMostPort) return *port;
  throw user_error("{}: \"{}\" is no port", shown, text).advise("a port is a number from 1 to 65535");
}

}  // namespace

Environment::Environment(std::map<std::string, std::string> values)
    : values_([values = std::move(values)](const std::string& name) {
        const auto found = values.find(name);
        return found == values.end() ? std::nullopt : std::optional(found->second);
      }) {}

Environment Environment::of_process() {
  return Environment([](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  });
}

std::optional<std::string> Environment::text(const std::string& name) const {
  std::optional<std::string> value = values_(name);
  if (value && value->empty()) value.reset();
  return value;
}

std::optional<int> Environment::number(const std::string& name, int least, int most) const {
  const std::optional<std::string> value = text(name);
  if (!value) return std::nullopt;
  const std::optional<int> number = whole_number(*value);
  if (!number) {
    throw user_error("{}={}: a whole number is expected", name, printable_line(*value))
        .advise("launchers set it; where a script does, mend it there");
  }
  if (*number < least || *number > most) {
    throw user_error("{}={}: a number from {} to {} is expected", name, *number, least, most)
        .advise("launchers set it; where a script does, mend it there");
  }
  return number;
}

std::string Environment::set_of(std::initializer_list<const char*> names) const {
  std::vector<std::string> words;
  for (const char* name : names) {
    if (const auto value = text(name)) words.push_back(fmt::format("{}={}", name, printable_line(*value)));
  }
  return listed(words);
}

std::string Environment::unset_of(std::initializer_list<const char*> names) const {
  std::vector<std::string> words;
  for (const char* name : names) {
    if (!has(name)) words.emplace_back(name);
  }
  return listed(words);
}

Address parse_address(const std::string& text, const std::string& name) {
  const std::string shown = fmt::format("{} {}", name, printable_line(text));
  const std::string advice = "write host:port, as in node1:29500 or [fd00::1]:29500";
  std::string host = text;
  std::optional<std::string> port;
  if (text.starts_with("[")) {
    const size_t end = text.find(']');
    if (end == std::string::npos) throw user_error(R"({}: "[" without "]")", shown).advise(advice);
    host = text.substr(1, end - 1);
    const std::string rest = text.substr(end + 1);
    if (!rest.empty() && !rest.starts_with(":")) throw user_error(R"({}: "{}" behind "]")", shown, rest).advise(advice);
    if (!rest.empty()) port = rest.substr(1);
  } else if (const size_t colon = text.find(':'); colon != std::string::npos && colon == text.rfind(':')) {
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  if (host.empty() || host.find_first_of(" \t\n/") != std::string::npos) {
    throw user_error("{}: \"{}\" is no host", shown, printable_line(host)).advise(advice);
  }
  return {.host = host, .port = port ? port_of(*port, shown) : kUsualPort};
}

std::optional<Address> address_of(const Environment& environment, const std::string& host, const std::string& port) {
  const std::optional<std::string> name = environment.text(host);
  const std::optional<std::string> number = environment.text(port);
  if (!name) {
    if (!number) return std::nullopt;
    throw user_error("{}={} is set, {} is not", port, printable_line(*number), host)
        .advise(fmt::format("set {} to the host of process 0, or unset {}", host, port));
  }
  Address address = parse_address(*name, host);
  const bool both =
      !name->starts_with("[") && name->find(':') != std::string::npos && name->find(':') == name->rfind(':');
  if (both) {
    throw user_error("{}={}: a host alone is expected", host, printable_line(*name))
        .advise(fmt::format("the port has a name of its own: {}={} {}={}", host, address.host, port, address.port));
  }
  if (number) address.port = port_of(*number, fmt::format("{}={}", port, printable_line(*number)));
  return address;
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " and " : ", ";
    text += words[i];
  }
  return text;
}

}  // namespace sluice::launch
