// The one exception type: what failed, the values, where in the user's input, what to do.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace sluice {

enum class ErrorKind {
  user,      // the input is wrong: exit code 2
  runtime,   // the machine or a peer failed: exit code 1
  internal,  // a contract inside sluice was broken: exit code 1
};

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }
  // Place in the user's input ("file.yaml:23"), empty when there is none.
  const std::string& where() const { return where_; }
  // What to do about it, empty when there is nothing to say.
  const std::string& hint() const { return hint_; }

  Error&& at(std::string where) && {
    where_ = std::move(where);
    return std::move(*this);
  }
  Error&& advise(std::string hint) && {
    hint_ = std::move(hint);
    return std::move(*this);
  }

 private:
  ErrorKind kind_;
  std::string where_;
  std::string hint_;
};

// "where: message\n       hint": the text a person sees after "error: ".
std::string describe(const Error& error);

template <class... Args>
Error user_error(fmt::format_string<Args...> format, Args&&... args) {
  return {ErrorKind::user, fmt::vformat(format, fmt::make_format_args(args...))};
}

template <class... Args>
Error runtime_failure(fmt::format_string<Args...> format, Args&&... args) {
  return {ErrorKind::runtime, fmt::vformat(format, fmt::make_format_args(args...))};
}

// Throws an internal error unless `ok`: for contracts between parts of sluice.
template <class... Args>
void require(bool ok, fmt::format_string<Args...> format, Args&&... args) {
  if (!ok) {
    throw Error(ErrorKind::internal, fmt::vformat(format, fmt::make_format_args(args...)));
  }
}

}  // namespace sluice
