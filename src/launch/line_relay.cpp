#include "launch/line_relay.h"

#include <utility>

namespace sluice::launch {
namespace {

constexpr size_t kLongestLine = 1 << 16;
constexpr size_t kLongestExactLine = 1 << 24;  // it may be a program's input

// Behind the last "\r" that anything follows.
std::string_view last_written(std::string_view text) {
  if (text.ends_with('\r')) text.remove_suffix(1);
  return text.substr(text.rfind('\r') + 1);  // npos + 1 is 0
}

}  // namespace

std::string LineRelay::line(std::string_view text) const {
  return prefix_ + std::string(last_written(text)) + "\n";
}

std::string LineRelay::add(std::string_view bytes) {
  pending_ += bytes;
  const size_t end = pending_.rfind('\n') + 1;
  std::string whole;
  if (exact()) {
    const size_t taken = pending_.size() - end > kLongestExactLine ? pending_.size() : end;
    whole = pending_.substr(0, taken);
    pending_.erase(0, taken);
    return whole;
  }
  for (size_t begin = 0; begin < end;) {
    const size_t newline = pending_.find('\n', begin);
    whole += line(std::string_view(pending_).substr(begin, newline - begin));
    begin = newline + 1;
  }
  pending_.erase(0, end);
  if (pending_.size() > kLongestLine) {
    const std::string_view left = last_written(pending_);
    if (left.size() > kLongestLine) {
      whole += line(left);
      pending_.clear();
    } else {
      pending_ = std::string(left) + (pending_.ends_with('\r') ? "\r" : "");
    }
  }
  return whole;
}

std::string LineRelay::finish() {
  std::string left = std::exchange(pending_, {});
  if (exact() || left.empty()) return left;
  return line(left);
}

}  // namespace sluice::launch
