// One side of a message between two ranks.
#pragma once

#include <atomic>
#include <memory>

#include "comm/bell.h"
#include "comm/processes/packets.h"

namespace sluice {

struct Message {
  enum class State : uint8_t { posted, moving, done };
  Address address;
  Contents contents;
  bool sends = false;
  bool same_call = false;      // both sides have to be in the same call; else only their data are compared
  std::string axis;            // for what is said where they are not
  std::byte* data = nullptr;   // of `contents.bytes`; only read where it sends
  std::shared_ptr<Bell> bell;  // rings when it is done
  std::atomic<State> state{State::posted};
  std::atomic<bool> failed{false};  // it is done without its data, because the job has failed

  std::span<std::byte> bytes() const { return {data, contents.bytes}; }
  int peer() const { return sends ? address.to : address.from; }
  bool done() const { return state.load() == State::done; }
  void finish() {
    // The waiting thread may go on, and drop the message, as soon as it is done.
    const std::shared_ptr<Bell> ringing = bell;
    state.store(State::done);
    ringing->ring();
  }
};
using MessagePtr = std::shared_ptr<Message>;

}  // namespace sluice
