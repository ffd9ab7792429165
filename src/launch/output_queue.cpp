#include "launch/output_queue.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

namespace sluice::launch {
namespace {

constexpr size_t kFull = 1 << 20;

// At most what a pipe that is ready takes without waiting, up to the end of a line where there is one.
size_t piece_of(const std::string& text) {
  if (text.size() <= PIPE_BUF) return text.size();
  const size_t end = text.rfind('\n', PIPE_BUF - 1);
  return end == std::string::npos ? PIPE_BUF : end + 1;
}

// A pipe then takes PIPE_BUF without waiting.
bool takes(int number) {
  pollfd ready{.fd = number, .events = POLLOUT, .revents = 0};
  return ::poll(&ready, 1, 0) == 1;
}

}  // namespace

bool OutputQueue::ready() const {
  return pending_.empty() && takes(number_);
}

bool OutputQueue::full() const {
  return waits_ && pending_.size() >= kFull;
}

void OutputQueue::add(std::string_view lines, bool continues) {
  if (abandoned_ || error_ != 0 || lines.empty()) return;
  if (!waits_ && pending_.size() >= kFull) {
    lost_ = true;
    return;
  }
  if (in_line_ && !continues) pending_ += "\n";
  if (over_line_) pending_ += "\r\033[K";
  pending_ += lines;
  in_line_ = !lines.ends_with('\n');
}

void OutputQueue::write_some() {
  while (!pending_.empty()) {
    if (!takes(number_)) return;
    const ssize_t count = ::write(number_, pending_.data(), piece_of(pending_));
    if (count >= 0) {
      pending_.erase(0, static_cast<size_t>(count));
      continue;
    }
    if (errno == EINTR || errno == EAGAIN) return;
    if (errno == EPIPE || errno == EIO) {  // EIO: the terminal is closed
      abandoned_ = true;
    } else {
      error_ = errno;
    }
    pending_.clear();
  }
}

}  // namespace sluice::launch
