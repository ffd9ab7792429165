// A wire that tells late what has become of bulk: by then the other process may have said that it has left.
#include <gtest/gtest.h>

#include <deque>
#include <functional>

#include "comm/processes/memory_wire.h"
#include "comm/processes/run_processes.h"

namespace sluice::test {
namespace {

using Clock = std::chrono::steady_clock;

class LateWire final : public Wire {
 public:
  explicit LateWire(std::unique_ptr<Wire> wire) : wire_(std::move(wire)) {}

  int process() const override { return wire_->process(); }
  int processes() const override { return wire_->processes(); }
  void send_packet(int to, std::span<const std::byte> bytes) override { wire_->send_packet(to, bytes); }
  void send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) override { wire_->send_bulk(to, id, bytes); }
  void receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) override {
    wire_->receive_bulk(from, id, bytes);
  }
  void progress(Events& events, Clock::time_point deadline, bool waited_for) override {
    Holder holder(events, held_);
    wire_->progress(holder, held_.empty() ? deadline : std::min(deadline, held_.front().first), waited_for);
    for (; !held_.empty() && held_.front().first <= Clock::now(); held_.pop_front()) held_.front().second(events);
  }
  void wake() override { wire_->wake(); }
  void abandon_bulk() override {
    held_.clear();
    wire_->abandon_bulk();
  }

 private:
  using Held = std::deque<std::pair<Clock::time_point, std::function<void(Events& events)>>>;
  // Keeps what is said of bulk for a while.
  class Holder final : public Events {
   public:
    Holder(Events& events, Held& held) : events_(events), held_(held) {}
    void packet(int from, std::span<const std::byte> bytes) override { events_.packet(from, bytes); }
    void sent(int to, uint32_t id) override {
      hold([to, id](Events& events) { events.sent(to, id); });
    }
    void received(int from, uint32_t id) override {
      hold([from, id](Events& events) { events.received(from, id); });
    }
    void lost(int process, const std::string& why) override { events_.lost(process, why); }

   private:
    void hold(std::function<void(Events& events)> say) {
      held_.emplace_back(Clock::now() + std::chrono::milliseconds(20), std::move(say));
    }
    Events& events_;
    Held& held_;
  };

  std::unique_ptr<Wire> wire_;
  Held held_;
};

// Rank 0 hears of everything at once, and leaves.
TEST(LateWire, WhatIsUnderWayToOrFromARankThatHasLeftEndsWell) {
  MemoryWires wires(2);
  ProcessCase test;
  test.wire = [&](int process) -> std::unique_ptr<Wire> {
    if (process == 0) return wires.wire(0);
    return std::make_unique<LateWire>(wires.wire(1));
  };
  expect_processes(test, [](Communicator& world) {
    Stream stream;
    std::vector<float> in(20'000, static_cast<float>(world.rank())), out(in.size(), -1.0F);
    const std::vector<int64_t> counts(2, 10'000);
    world.all_to_all_v(stream, tensor_of(out.data(), {20'000}), counts, tensor_of(in.data(), {20'000}), counts, "rows")
        .wait(stream);
    std::vector<float> expected(10'000, 0.0F);
    expected.resize(20'000, 1.0F);
    EXPECT_EQ(out, expected);
  });
}

// A receive that will never come is found as soon as the data before it have.
TEST(LateWire, ARankThatWantsMoreOfOneThatHasLeftIsTold) {
  MemoryWires wires(2);
  ProcessCase test;
  test.timeout_s = 30;
  test.wire = [&](int process) -> std::unique_ptr<Wire> {
    if (process == 0) return wires.wire(0);
    return std::make_unique<LateWire>(wires.wire(1));
  };
  const Clock::time_point begin = Clock::now();
  const auto thrown = run_processes(test, [](Communicator& world) {
    Stream stream;
    std::vector<float> data(20'000, 1.0F), more(20'000);
    const Tensor first = tensor_of(data.data(), {20'000}), second = tensor_of(more.data(), {20'000});
    if (world.rank() == 0) return world.send(stream, first, 1, 0, "first").wait(stream);
    Work one = world.recv(stream, first, 0, 0, "first");
    Work two = world.recv(stream, second, 0, 0, "second");
    two.wait(stream);
    one.wait(stream);
  });
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(15));
  ASSERT_TRUE(thrown[1]);
  EXPECT_THROW(std::rethrow_exception(thrown[1]), Error);
}

}  // namespace
}  // namespace sluice::test
