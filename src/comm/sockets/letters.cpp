#include "comm/sockets/letters.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace sluice {

namespace {

// No text begins so, and no machine of another order of bytes.
constexpr std::string_view kMark = "\x89sluice\n";
// A text grows by as much as has come, whatever its header says.
constexpr size_t kPiece = size_t{64} << 10;

}  // namespace

Correspondent::Header Correspondent::header_of(const Letter& letter) {
  Header header;
  std::copy(kMark.begin(), kMark.end(), header.mark.begin());
  header.version = kLetterVersion;
  header.kind = static_cast<uint32_t>(letter.kind);
  header.bytes = letter.text.size();
  return header;
}

bool send_letter(int number, const Letter& letter, Deadline deadline) {
  const Correspondent::Header header = Correspondent::header_of(letter);
  const std::string bytes = std::string(reinterpret_cast<const char*>(&header), sizeof(header)) + letter.text;
  std::string_view rest = bytes;
  while (!rest.empty()) {
    const ssize_t count = ::send(number, rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count > 0) rest.remove_prefix(static_cast<size_t>(count));
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (!rest.empty() && !wait_for(number, POLLOUT, deadline)) return false;
  }
  return true;
}

size_t Correspondent::read_some(char* into, size_t bytes, bool& ended) const {
  const ssize_t count = ::recv(number(), into, bytes, MSG_DONTWAIT);
  if (count > 0) return static_cast<size_t>(count);
  ended = count == 0 || (errno != EAGAIN && errno != EINTR);
  return 0;
}

Correspondent::State Correspondent::read(size_t most) {
  bool ended = false;
  if (header_bytes_ < sizeof(header_)) {
    header_bytes_ +=
        read_some(reinterpret_cast<char*>(&header_) + header_bytes_, sizeof(header_) - header_bytes_, ended);
    if (std::memcmp(header_.mark.data(), kMark.data(), std::min(header_bytes_, kMark.size())) != 0) {
      return State::stranger;
    }
    if (header_bytes_ < sizeof(header_)) return ended ? State::ended : State::waiting;
  }
  if (header_.bytes > most) return State::stranger;
  while (text_.size() < header_.bytes && !ended) {
    const size_t had = text_.size();
    text_.resize(std::min<size_t>(had + kPiece, header_.bytes));
    const size_t count = read_some(text_.data() + had, text_.size() - had, ended);
    text_.resize(had + count);
    if (count == 0) break;
  }
  if (text_.size() < header_.bytes) return ended ? State::ended : State::waiting;
  const bool fits = header_.version == kLetterVersion || header_.kind == static_cast<uint32_t>(LetterKind::refusal);
  return fits ? State::complete : State::foreign;
}

Correspondent::State Correspondent::read_until(Deadline deadline, size_t most) {
  while (true) {
    const State state = read(most);
    if (state != State::waiting || !wait_for(number(), POLLIN, deadline)) return state;
  }
}

Letter Correspondent::take_letter() {
  header_bytes_ = 0;
  return {.kind = static_cast<LetterKind>(header_.kind), .text = std::exchange(text_, {})};
}

}  // namespace sluice
