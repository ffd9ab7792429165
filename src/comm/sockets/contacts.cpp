#include "comm/sockets/contacts.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace sluice {

namespace {

// Takes texts apart: words end with a space or a line. Wrong stays wrong.
class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}

  std::string until(char end) {
    const size_t at = rest_.find(end);
    if (at == std::string_view::npos) {
      wrong_ = true;
      return {};
    }
    const std::string word(rest_.substr(0, at));
    rest_.remove_prefix(at + 1);
    return word;
  }
  int number_until(char end) {
    const std::string word = until(end);
    int value = 0;
    const auto [last, code] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (code != std::errc() || last != word.data() + word.size() || word != std::to_string(value)) wrong_ = true;
    return value;
  }
  int port_until(char end) {
    const int port = number_until(end);
    if (port < 1 || port > 65535) wrong_ = true;
    return port;
  }
  Member member() {
    Member member;
    if (!from_line(until('\n'), member)) wrong_ = true;
    return member;
  }
  bool wrong() const { return wrong_; }
  bool over() const { return rest_.empty(); }

 private:
  std::string_view rest_;
  bool wrong_ = false;
};

}  // namespace

std::string to_text(const Introduction& introduction) {
  return fmt::format("{} {} {} {}\n{}\n", introduction.processes, introduction.world, introduction.port,
                     introduction.local, to_line(introduction.member));
}

std::optional<Introduction> introduction_of(const std::string& text) {
  Words words(text);
  Introduction read;
  read.processes = words.number_until(' ');
  read.world = words.number_until(' ');
  read.port = words.port_until(' ');
  read.local = words.until('\n');
  read.member = words.member();
  return words.wrong() || !words.over() ? std::nullopt : std::optional(read);
}

std::string to_text(const Directory& directory) {
  std::string text = directory.token + "\n";
  for (const Contact& contact : directory.contacts) {
    text += fmt::format("{} {} {}\n{}\n", contact.address, contact.port, contact.local, to_line(contact.member));
  }
  return text;
}

std::optional<Directory> directory_of(const std::string& text) {
  Words words(text);
  Directory read;
  read.token = words.until('\n');
  while (!words.wrong() && !words.over()) {
    Contact& contact = read.contacts.emplace_back();
    contact.address = words.until(' ');
    contact.port = words.port_until(' ');
    contact.local = words.until('\n');
    contact.member = words.member();
    if (contact.member.process != static_cast<int>(read.contacts.size()) - 1) return std::nullopt;
  }
  return words.wrong() ? std::nullopt : std::optional(read);
}

std::string to_text(const Pass& pass) {
  return fmt::format("{} {} {}\n", pass.token, pass.process, pass.bulk ? "bulk" : "packets");
}

std::optional<Pass> pass_of(const std::string& text) {
  Words words(text);
  Pass read;
  read.token = words.until(' ');
  read.process = words.number_until(' ');
  const std::string use = words.until('\n');
  read.bulk = use == "bulk";
  const bool known = read.bulk || use == "packets";
  return words.wrong() || !words.over() || !known ? std::nullopt : std::optional(read);
}

std::string to_text(const Error& error) {
  const char* const kind = error.kind() == ErrorKind::user      ? "user"
                           : error.kind() == ErrorKind::runtime ? "runtime"
                                                                : "internal";
  return fmt::format("{}\n{}{}{}", kind, error.what(), '\0', error.hint());
}

Error error_of(const std::string& text) {
  Words words(text);
  const std::string kind = words.until('\n');
  std::string what = words.until('\0');
  if (words.wrong()) return runtime_failure("process 0 has refused this process, in words that cannot be read");
  std::string hint = text.substr(kind.size() + what.size() + 2);
  const ErrorKind as = kind == "user" ? ErrorKind::user : kind == "runtime" ? ErrorKind::runtime : ErrorKind::internal;
  return Error(as, what).advise(std::move(hint));
}

}  // namespace sluice
