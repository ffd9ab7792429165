// The packets that couriers send each other: what they hold, as bytes. Both ends are the same program on machines of
// the same byte order (members.h compares versions), but nothing is read beyond a packet's end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>

#include "base/error.h"

namespace sluice {

// Which message: those of one address are received in the order in which they were sent.
struct Address {
  uint64_t channel = 0;  // of the communicator
  int32_t from = 0;      // ranks of the world
  int32_t to = 0;
  int32_t tag = 0;

  auto operator<=>(const Address&) const = default;
};

// What the sender is in, so that a receiver that is in something else notices.
struct Contents {
  std::string call;  // "all_gather of block 3 (axis fsdp)"
  std::string data;  // what has to be equal on both sides: "f32 x 12"
  uint64_t bytes = 0;
};

namespace packets {

// A small message, whole.
struct Small {
  Address address;
  Contents contents;
  std::span<const std::byte> data;  // in the packet
};
// A larger one, which the sender has ready under this number of its own.
struct Offer {
  Address address;
  Contents contents;
  uint32_t offer = 0;
};
// The receiver is ready for it, as bulk of this id.
struct Accept {
  uint32_t offer = 0;
  uint32_t bulk = 0;
};
struct Failure {
  int32_t rank = 0;  // of the world
  ErrorKind kind = ErrorKind::runtime;
  std::string message;
};
struct Left {
  int32_t job = 0;  // the number of the sender's job
  int32_t rank = 0;
};
// What do your ranks do? The answer has the question's number.
struct Question {
  uint32_t number = 0;
};
struct Answer {
  uint32_t number = 0;
  std::string text;
};
// Text for the other process, in the order of the sender's texts.
struct Text {
  std::string text;
};
// Nothing comes after this.
struct Goodbye {};

using Packet = std::variant<Small, Offer, Accept, Failure, Left, Question, Answer, Text, Goodbye>;

// Failures and answers are cut where the packet would be larger than a wire takes. A text must not be.
std::string encode(const Packet& packet);
// Throws an internal error for what encode() did not make. What is in the result points into `bytes`.
Packet decode(std::span<const std::byte> bytes);

// Bytes of data that a Small can have beside these contents.
size_t most_small_bytes(const Contents& contents);

}  // namespace packets
}  // namespace sluice
