// Letters: what is said over a connection before the job works with it.
//   A header and a text. The header, and the letter that refuses, are the same in every version of sluice, so that one
// can tell the other that they do not fit.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/descriptor.h"
#include "comm/sockets/socket_address.h"
#include "comm/sockets/sockets.h"

namespace sluice {

enum class LetterKind : uint32_t {
  refusal = 1,   // an Error
  join = 2,      // an Introduction, to process 0
  welcome = 3,   // the Directory, from process 0
  pass = 4,      // a Pass, between any two
  ready = 5,     // to process 0: this process is connected to all others
  complete = 6,  // from process 0: all are
  launcher = 7,  // what launchers of several hosts say to each other (launch/host_letters.h)
};

struct Letter {
  LetterKind kind = LetterKind::refusal;
  std::string text;
};

constexpr uint32_t kLetterVersion = 1;

// Whether all of it was taken before the deadline.
bool send_letter(int number, const Letter& letter, Deadline deadline);

// A connection on which letters come. Not one byte behind a letter is read with it.
class Correspondent {
 public:
  enum class State {
    waiting,   // for the rest of a letter
    complete,  // letter() is there
    ended,     // the other side has closed the connection
    stranger,  // what came is no letter
    foreign,   // it is one of another version
  };

  explicit Correspondent(Descriptor socket, SocketAddress from = {}) : socket_(std::move(socket)), from_(from) {}

  int number() const { return socket_.number(); }
  // Where it came from; none where it came from this machine by a local name.
  const SocketAddress& from() const { return from_; }
  uint32_t version() const { return header_.version; }
  Descriptor take_socket() { return std::move(socket_); }

  // Reads what has come. Letters of more than `most` bytes are a stranger's.
  State read(size_t most);
  // The same, waiting until the deadline for something else than `waiting`.
  State read_until(Deadline deadline, size_t most);
  // Once complete; the next read() begins another.
  Letter take_letter();

 private:
  struct Header {
    std::array<char, 8> mark{};
    uint32_t version = 0;
    uint32_t kind = 0;
    uint64_t bytes = 0;
  };
  friend bool send_letter(int number, const Letter& letter, Deadline deadline);
  static Header header_of(const Letter& letter);
  size_t read_some(char* into, size_t bytes, bool& ended) const;

  Descriptor socket_;
  SocketAddress from_;
  Header header_;
  size_t header_bytes_ = 0;  // of it have come
  std::string text_;
};

}  // namespace sluice
