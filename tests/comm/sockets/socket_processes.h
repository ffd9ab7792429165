// Processes of a job as threads of a test, connected by sockets.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iterator>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/sockets/rendezvous.h"

namespace sluice::test {

// A test must not wait longer, however slow the machine is.
constexpr std::chrono::seconds kLong{30};

inline Deadline soon() {
  return std::chrono::steady_clock::now() + kLong;
}

inline size_t open_descriptors() {
  const auto all = std::filesystem::directory_iterator("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

inline Member member_of(int process, int processes) {
  return {.process = process,
          .host = "host" + std::to_string(process),
          .first_rank = process,
          .ranks = 1,
          .common = {{"processes", std::to_string(processes)}}};
}

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// What a wire has told.
class Heard : public Wire::Events {
 public:
  void packet(int from, std::span<const std::byte> bytes) override {
    packets[from].emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (on_packet) on_packet(from, packets[from].back());
  }
  void sent(int to, uint32_t id) override { EXPECT_TRUE(sent_bulk.emplace(to, id).second); }
  void received(int from, uint32_t id) override {
    EXPECT_TRUE(received_bulk.emplace(from, id).second);
    if (on_received) on_received(from, id);
  }
  void lost(int process, const std::string& why) override { EXPECT_TRUE(lost_processes.emplace(process, why).second); }

  std::map<int, std::vector<std::string>> packets;
  std::set<std::pair<int, uint32_t>> sent_bulk;
  std::set<std::pair<int, uint32_t>> received_bulk;
  std::map<int, std::string> lost_processes;
  std::function<void(int from, const std::string& packet)> on_packet = {};
  std::function<void(int from, uint32_t id)> on_received = {};
};

// Goes on until done(); fails the test where that takes too long.
inline void progress_until(Wire& wire, Heard& heard, const std::function<bool()>& done) {
  const Deadline deadline = soon();
  while (!done()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "process " << wire.process();
    wire.progress(heard, deadline, true);
  }
}

struct Outcome {
  std::vector<Member> members = {};
  std::optional<Error> error = {};
};

// Connects `processes` in threads and runs body(wire, members) in each; returns how each ended. `meeting`: of process
// 0; the others come to the port that it listens at.
inline std::vector<Outcome> run_processes(
    int processes, Rendezvous meeting, const std::function<void(Wire&, const std::vector<Member>&)>& body,
    const std::function<void(Member& self, int& processes, int& world)>& change = [](Member&, int&, int&) {}) {
  Listener listener(meeting.port);
  meeting.port = listener.port();
  std::vector<Outcome> outcomes(static_cast<size_t>(processes));
  std::vector<std::thread> threads;
  for (int p = processes - 1; p >= 0; --p) {
    std::optional<Listener> own;
    if (p == 0) own.emplace(std::move(listener));
    threads.emplace_back([&, p, own = std::move(own)]() mutable {
      Outcome& outcome = outcomes[static_cast<size_t>(p)];
      try {
        Member self = member_of(p, processes);
        int count = processes;
        int world = processes;
        change(self, count, world);
        const auto wire = connect_by_sockets(meeting, self, count, world, outcome.members, std::move(own));
        if (body) body(*wire, outcome.members);
      } catch (const Error& error) {
        outcome.error = error;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return outcomes;
}

inline void expect_all_well(const std::vector<Outcome>& outcomes) {
  for (const Outcome& outcome : outcomes) EXPECT_FALSE(outcome.error) << describe(*outcome.error);
}

// Nothing is left open by a test.
class Sockets : public testing::Test {
 protected:
  void SetUp() override { before_ = open_descriptors(); }
  void TearDown() override { EXPECT_EQ(open_descriptors(), before_); }

 private:
  size_t before_ = 0;
};

}  // namespace sluice::test
