// The wire's contract between processes that met at a rendezvous, by TCP and by sockets of the machine.
#include <gtest/gtest.h>

#include <atomic>
#include <random>

#include "comm/sockets/socket_processes.h"

namespace sluice::test {
namespace {

class SocketWires : public Sockets, public testing::WithParamInterface<bool> {
 protected:
  void run(int processes, const std::function<void(Wire&)>& body) {
    const Rendezvous meeting{.host = "127.0.0.1", .timeout_s = 60, .local = GetParam()};
    expect_all_well(run_processes(processes, meeting, [&](Wire& wire, const std::vector<Member>& members) {
      EXPECT_EQ(wire.processes(), processes);
      ASSERT_EQ(members.size(), static_cast<size_t>(processes));
      for (int p = 0; p < processes; ++p) EXPECT_EQ(members[static_cast<size_t>(p)], member_of(p, processes));
      body(wire);
    }));
  }
};

INSTANTIATE_TEST_SUITE_P(Connected, SocketWires, testing::Bool(),
                         [](const auto& param) { return param.param ? "locally" : "by_tcp"; });

// What bulk of this number repeats.
std::vector<std::byte> piece_of(uint32_t number) {
  std::vector<std::byte> piece(65537);
  std::mt19937 random(number);
  for (std::byte& byte : piece) byte = static_cast<std::byte>(random());
  return piece;
}

std::vector<std::byte> content(size_t bytes, uint32_t number) {
  const std::vector<std::byte> piece = piece_of(number);
  std::vector<std::byte> data(bytes);
  for (size_t at = 0; at < bytes; at += piece.size()) {
    std::memcpy(data.data() + at, piece.data(), std::min(bytes - at, piece.size()));
  }
  return data;
}

bool holds(const std::vector<std::byte>& data, uint32_t number) {
  const std::vector<std::byte> piece = piece_of(number);
  bool same = true;
  for (size_t at = 0; at < data.size(); at += piece.size()) {
    same = same && std::memcmp(data.data() + at, piece.data(), std::min(data.size() - at, piece.size())) == 0;
  }
  return same;
}

// All say that they are done, and wait until all others have.
void part(Wire& wire, Heard& heard) {
  std::set<int> done;
  for (int p = 0; p < wire.processes(); ++p) {
    if (p != wire.process()) wire.send_packet(p, bytes_of("done"));
  }
  progress_until(wire, heard, [&] {
    for (const auto& [from, packets] : heard.packets) {
      if (!packets.empty() && packets.back() == "done") done.insert(from);
    }
    return static_cast<int>(done.size()) == wire.processes() - 1;
  });
  // Who is done first may be gone already.
  for (const auto& [process, why] : heard.lost_processes) EXPECT_TRUE(done.contains(process)) << why;
}

TEST_P(SocketWires, OneProcessIsConnectedToNobody) {
  run(1, [](Wire& wire) {
    Heard heard;
    const Deadline deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(5);
    wire.progress(heard, deadline, true);
    EXPECT_GE(std::chrono::steady_clock::now(), deadline);
    wire.wake();
    wire.progress(heard, soon(), false);
    wire.abandon_bulk();
  });
}

TEST_P(SocketWires, PacketsOfAllSizesComeInTheirOrder) {
  constexpr size_t kPackets = 400;
  const auto packet = [](int from, int to, size_t i) {
    const size_t bytes = i % 50 == 7 ? Wire::kMostPacketBytes : 1 + (i * 37) % 300;
    std::string text(bytes, static_cast<char>('a' + (i + static_cast<size_t>(3 * from + to)) % 26));
    if (bytes > 8) std::memcpy(text.data(), &i, sizeof(i));
    return text;
  };
  run(4, [&](Wire& wire) {
    Heard heard;
    for (size_t i = 0; i < kPackets; ++i) {
      for (int p = 0; p < 4; ++p) {
        if (p != wire.process()) wire.send_packet(p, bytes_of(packet(wire.process(), p, i)));
      }
    }
    part(wire, heard);
    ASSERT_EQ(heard.packets.size(), 3U);
    for (const auto& [from, packets] : heard.packets) {
      ASSERT_EQ(packets.size(), kPackets + 1);
      for (size_t i = 0; i < kPackets; ++i) ASSERT_EQ(packets[i], packet(from, wire.process(), i)) << i;
    }
  });
}

// Each sends each several pieces; who receives says when it is ready for them, in an order of its own.
TEST_P(SocketWires, BulkGoesFromAllToAllAtOnce) {
  constexpr int kProcesses = 5;
  const size_t sizes[] = {1, 15, 16, 17, 4096, 65536, 300'001, 2'000'003};
  const auto number = [](int from, int to, uint32_t id) {
    return id + 100 * static_cast<uint32_t>(kProcesses * from + to);
  };
  run(kProcesses, [&](Wire& wire) {
    const int self = wire.process();
    Heard heard;
    std::map<std::pair<int, uint32_t>, std::vector<std::byte>> in;
    std::map<std::pair<int, uint32_t>, std::vector<std::byte>> out;
    heard.on_packet = [&](int from, const std::string& text) {
      if (text == "done") return;
      const auto id = static_cast<uint32_t>(std::stoul(text));
      const auto& data = out[{from, id}] = content(sizes[id], number(self, from, id));
      wire.send_bulk(from, id, data);
    };
    std::vector<std::pair<int, uint32_t>> order;
    for (int p = 0; p < kProcesses; ++p) {
      for (uint32_t id = 0; p != self && id < std::size(sizes); ++id) order.emplace_back(p, id);
    }
    std::shuffle(order.begin(), order.end(), std::mt19937(static_cast<unsigned>(self)));
    for (const auto& [p, id] : order) {
      auto& data = in[{p, id}] = std::vector<std::byte>(sizes[id]);
      wire.receive_bulk(p, id, data);
      wire.send_packet(p, bytes_of(std::to_string(id)));
    }
    progress_until(wire, heard, [&] {
      return heard.received_bulk.size() == order.size() && heard.sent_bulk.size() == order.size();
    });
    for (const auto& [key, data] : in) {
      EXPECT_TRUE(holds(data, number(key.first, self, key.second))) << key.first << " " << key.second;
    }
    part(wire, heard);
  });
}

TEST_P(SocketWires, LargeBulkGoesBothWaysAtOnce) {
  constexpr size_t kBytes = (size_t{64} << 20) + 5;
  run(2, [&](Wire& wire) {
    const int other = 1 - wire.process();
    Heard heard;
    const std::vector<std::byte> out = content(kBytes, static_cast<uint32_t>(wire.process()));
    std::vector<std::byte> in(kBytes);
    wire.receive_bulk(other, (1U << 30) - 1, in);
    wire.send_packet(other, bytes_of("ready"));
    // Packets do not wait behind it: they come while it is under way.
    size_t answers = 0;
    heard.on_packet = [&](int from, const std::string& text) {
      if (text == "ready") {
        wire.send_bulk(from, (1U << 30) - 1, out);
        wire.send_packet(from, bytes_of("question"));
      }
      if (text == "question") wire.send_packet(from, bytes_of("answer"));
      if (text == "answer" && heard.received_bulk.empty()) ++answers;
    };
    progress_until(wire, heard, [&] { return heard.received_bulk.size() + heard.sent_bulk.size() == 2; });
    EXPECT_EQ(answers, 1U);
    EXPECT_TRUE(holds(in, static_cast<uint32_t>(other)));
    part(wire, heard);
  });
}

TEST_P(SocketWires, WakeEndsProgressNowOrTheNextTime) {
  run(2, [](Wire& wire) {
    Heard heard;
    wire.wake();
    wire.wake();
    wire.progress(heard, soon(), true);
    std::atomic<bool> begun{false};
    std::thread waker([&] {
      begun.wait(false);
      wire.wake();
    });
    begun = true;
    begun.notify_all();
    const Deadline deadline = soon();
    wire.progress(heard, deadline, false);
    EXPECT_LT(std::chrono::steady_clock::now(), deadline);
    waker.join();
    part(wire, heard);
  });
}

// What a process has sent before it ends arrives, also where it leaves things unread.
TEST_P(SocketWires, WhoEndsIsLostAfterItsLastPacketAndBulk) {
  constexpr size_t kPackets = 50;
  run(3, [&](Wire& wire) {
    Heard heard;
    const std::vector<std::byte> data = content(100'000, 1);
    if (wire.process() == 2) {
      progress_until(wire, heard, [&] { return !heard.packets[0].empty() && !heard.packets[1].empty(); });
      for (int p = 0; p < 2; ++p) {
        for (size_t i = 0; i < kPackets; ++i) wire.send_packet(p, bytes_of("last words " + std::to_string(i)));
        wire.send_bulk(p, 7, data);
      }
      progress_until(wire, heard, [&] { return heard.sent_bulk.size() == 2; });
      return;
    }
    std::vector<std::byte> in(data.size());
    wire.receive_bulk(2, 7, in);
    for (int i = 0; i < 20; ++i) wire.send_packet(2, bytes_of("never read"));
    progress_until(wire, heard, [&] { return heard.lost_processes.contains(2); });
    EXPECT_EQ(heard.packets[2].size(), kPackets);
    EXPECT_TRUE(heard.received_bulk.contains({2, 7}));
    EXPECT_TRUE(holds(in, 1));
    EXPECT_FALSE(heard.lost_processes[2].empty());
    // It is no use to send it anything, and no harm.
    wire.send_packet(2, bytes_of("anyone there?"));
    wire.send_bulk(2, 8, data);
    wire.receive_bulk(2, 9, in);
    const int other = 1 - wire.process();
    wire.send_packet(other, bytes_of("done"));
    progress_until(wire, heard, [&] { return !heard.packets[other].empty(); });
  });
}

TEST_P(SocketWires, AbandonedBulkIsNotTouchedAnyMoreAndPacketsGoOn) {
  constexpr size_t kBytes = size_t{32} << 20;
  run(2, [&](Wire& wire) {
    const int other = 1 - wire.process();
    Heard heard;
    std::vector<std::byte> data(kBytes, wire.process() == 0 ? std::byte{1} : std::byte{2});
    if (wire.process() == 0) {
      wire.receive_bulk(1, 1, data);
      wire.send_packet(1, bytes_of("ready"));
      // Something of it has come.
      for (int i = 0; i < 1000 && data[0] == std::byte{1}; ++i) {
        wire.progress(heard, std::chrono::steady_clock::now() + std::chrono::milliseconds(1), true);
      }
      wire.abandon_bulk();
      std::memset(data.data(), 3, data.size());
      wire.receive_bulk(1, 2, data);
      wire.send_bulk(1, 3, data);
      for (int i = 0; i < 20; ++i) {
        wire.send_packet(1, bytes_of("question"));
        progress_until(wire, heard, [&] { return heard.packets[1].size() == static_cast<size_t>(i) + 1; });
      }
      EXPECT_EQ(std::count(data.begin(), data.end(), std::byte{3}), static_cast<ptrdiff_t>(kBytes));
      EXPECT_TRUE(heard.received_bulk.empty());
      wire.send_packet(1, bytes_of("abandon it"));
    } else {
      bool abandoned = false;
      heard.on_packet = [&](int from, const std::string& text) {
        if (text == "ready") wire.send_bulk(from, 1, data);
        if (text == "question") wire.send_packet(from, bytes_of("answer"));
        if (text == "abandon it") {
          wire.abandon_bulk();
          abandoned = true;
        }
      };
      progress_until(wire, heard, [&] { return abandoned; });
      EXPECT_TRUE(heard.sent_bulk.empty());
    }
    EXPECT_TRUE(heard.lost_processes.empty());
    part(wire, heard);
    // Without bulk the end of the other is an end, too.
    if (wire.process() == 0) progress_until(wire, heard, [&] { return heard.lost_processes.contains(other); });
  });
}

}  // namespace
}  // namespace sluice::test
