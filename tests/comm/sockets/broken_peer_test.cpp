// A wire whose other side does what no process of sluice does, or loses a connection.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "comm/sockets/socket_processes.h"
#include "comm/sockets/socket_wire.h"

namespace sluice::test {
namespace {

// The other ends of a wire's connections to process 1, in the test's hands.
class BrokenPeer : public Sockets {
 protected:
  std::unique_ptr<SocketWire> wire(std::chrono::milliseconds moment = kLong) {
    std::vector<SocketWire::Sockets> sockets(2);
    connect(sockets[1].packets, packets);
    connect(sockets[1].bulk, bulk);
    return std::make_unique<SocketWire>(0, std::move(sockets), moment);
  }
  static void put(const Descriptor& socket, const std::string& bytes) {
    ASSERT_EQ(::send(socket.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  static std::string packet(uint32_t length, const std::string& text) {
    return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text;
  }
  static std::string header(uint32_t id, uint64_t bytes, uint32_t zero = 0) {
    std::string text(16, '\0');
    std::memcpy(text.data(), &id, 4);
    std::memcpy(text.data() + 4, &zero, 4);
    std::memcpy(text.data() + 8, &bytes, 8);
    return text;
  }
  // Why process 1 was lost.
  std::string loss(Wire& w) {
    progress_until(w, heard, [&] { return !heard.lost_processes.empty(); });
    return heard.lost_processes[1];
  }

  Descriptor packets{-1};
  Descriptor bulk{-1};
  Heard heard;

 private:
  static void connect(Descriptor& here, Descriptor& there) {
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    here = Descriptor(pair[0]);
    there = Descriptor(pair[1]);
  }
  void TearDown() override {
    packets.close();
    bulk.close();
    Sockets::TearDown();
  }
};

TEST_F(BrokenPeer, BytesOfPacketsMayComeOneByOne) {
  const auto w = wire();
  std::string stream;
  for (const char* text : {"a", "bcd", "ef"}) stream += packet(static_cast<uint32_t>(std::strlen(text)), text);
  for (const char c : stream) {
    put(packets, std::string(1, c));
    w->progress(heard, std::chrono::steady_clock::now(), true);
  }
  EXPECT_EQ(heard.packets[1], (std::vector<std::string>{"a", "bcd", "ef"}));
}

TEST_F(BrokenPeer, BytesOfBulkMayComeOneByOne) {
  const auto w = wire();
  std::string first(3, 'x');
  std::string second(1, 'x');
  w->receive_bulk(1, 4, std::as_writable_bytes(std::span(first)));
  w->receive_bulk(1, 2, std::as_writable_bytes(std::span(second)));
  for (const char c : header(2, 1) + "s" + header(4, 3) + "fgh") {
    put(bulk, std::string(1, c));
    w->progress(heard, std::chrono::steady_clock::now(), true);
  }
  EXPECT_EQ(heard.received_bulk, (std::set<std::pair<int, uint32_t>>{{1, 2}, {1, 4}}));
  EXPECT_EQ(first + second, "fghs");
}

TEST_F(BrokenPeer, APacketOfNoBytesIsNone) {
  const auto w = wire();
  put(packets, packet(2, "ok") + packet(0, ""));
  EXPECT_EQ(loss(*w), "it sent 0 bytes as a packet");
  EXPECT_EQ(heard.packets[1].size(), 1U);
}

TEST_F(BrokenPeer, APacketThatIsTooLargeIsNone) {
  const auto w = wire();
  put(packets, packet(65537, "x"));
  EXPECT_EQ(loss(*w), "it sent 65537 bytes as a packet");
}

TEST_F(BrokenPeer, BulkThatNobodyWaitsForIsRefused) {
  const auto w = wire();
  std::string data(8, 'x');
  w->receive_bulk(1, 3, std::as_writable_bytes(std::span(data)));
  put(bulk, header(2, 8) + "12345678");
  EXPECT_EQ(loss(*w), "it sent bulk 2 of 8 bytes, which nothing here waits for");
  EXPECT_EQ(data, "xxxxxxxx");
}

TEST_F(BrokenPeer, BulkThatComesTwiceIsRefused) {
  const auto w = wire();
  std::string data(2, 'x');
  w->receive_bulk(1, 3, std::as_writable_bytes(std::span(data)));
  put(bulk, header(3, 2) + "12" + header(3, 2) + "34");
  EXPECT_EQ(loss(*w), "it sent bulk 3 of 2 bytes, which nothing here waits for");
  EXPECT_EQ(heard.received_bulk.size(), 1U);
  EXPECT_EQ(data, "12");
}

TEST_F(BrokenPeer, BulkOfAnotherSizeIsRefused) {
  const auto w = wire();
  std::string data(8, 'x');
  w->receive_bulk(1, 3, std::as_writable_bytes(std::span(data).first(4)));
  put(bulk, header(3, 8) + "12345678");
  EXPECT_EQ(loss(*w), "it sent bulk 3 with 8 bytes instead of 4");
  EXPECT_EQ(data, "xxxxxxxx");
}

TEST_F(BrokenPeer, AHeaderThatIsNoneIsRefused) {
  const auto w = wire();
  std::string data(8, 'x');
  w->receive_bulk(1, 3, std::as_writable_bytes(std::span(data)));
  put(bulk, header(3, 8, 1));
  EXPECT_NE(loss(*w), "");
}

TEST_F(BrokenPeer, WhereOneConnectionEndsTheOtherIsReadToItsEnd) {
  const auto w = wire();
  std::string data(3, 'x');
  w->receive_bulk(1, 1, std::as_writable_bytes(std::span(data)));
  put(packets, packet(3, "bye"));
  packets.close();
  progress_until(*w, heard, [&] { return !heard.packets.empty(); });
  put(bulk, header(1, 3) + "end");
  bulk.close();
  EXPECT_EQ(loss(*w), "its connection was closed");
  EXPECT_EQ(data, "end");
  EXPECT_EQ(heard.received_bulk.size(), 1U);
}

TEST_F(BrokenPeer, AProcessWithOneConnectionLeftIsLostAfterAMoment) {
  for (Descriptor* one : {&packets, &bulk}) {
    heard.lost_processes.clear();
    const auto w = wire(std::chrono::milliseconds(20));
    const Deadline before = std::chrono::steady_clock::now();
    one->close();
    EXPECT_EQ(loss(*w), "its connection was closed");
    EXPECT_GE(std::chrono::steady_clock::now(), before + std::chrono::milliseconds(20));
  }
}

TEST_F(BrokenPeer, ALossThatShowsWhenSomethingIsSentIsTold) {
  const auto w = wire();
  std::string data(1 << 20, 'x');
  packets.close();
  bulk.close();
  for (int i = 0; i < 3; ++i) w->send_packet(1, bytes_of("hello"));
  w->send_bulk(1, 1, std::as_bytes(std::span(data)));
  EXPECT_NE(loss(*w), "");
  EXPECT_TRUE(heard.sent_bulk.empty());
}

// More packets than the system takes while nobody reads them; the last still comes last.
TEST_F(BrokenPeer, PacketsWaitForASlowReader) {
  const auto w = wire();
  constexpr int kPackets = 100;
  std::string sent;
  for (int i = 0; i < kPackets; ++i) {
    const std::string text(Wire::kMostPacketBytes - static_cast<size_t>(i), static_cast<char>('a' + i % 26));
    w->send_packet(1, bytes_of(text));
    sent += packet(static_cast<uint32_t>(text.size()), text);
  }
  std::string got;
  std::string piece(1 << 20, '\0');
  while (got.size() < sent.size()) {
    const ssize_t count = ::recv(packets.number(), piece.data(), piece.size(), MSG_DONTWAIT);
    if (count > 0) got.append(piece, 0, static_cast<size_t>(count));
    w->progress(heard, std::chrono::steady_clock::now(), true);
  }
  EXPECT_TRUE(got == sent);
}

TEST_F(BrokenPeer, PacketsThatWaitAreSentBeforeTheEnd) {
  auto w = wire();
  const std::string text(Wire::kMostPacketBytes, 'x');
  constexpr size_t kPackets = 100;
  for (size_t i = 0; i < kPackets; ++i) w->send_packet(1, bytes_of(text));
  std::thread reader([&] {
    std::string piece(1 << 20, '\0');
    size_t got = 0;
    for (ssize_t count = 1; count > 0; got += static_cast<size_t>(count)) {
      count = ::recv(packets.number(), piece.data(), piece.size(), 0);
    }
    EXPECT_EQ(got, kPackets * (text.size() + 4));
  });
  w.reset();
  reader.join();
}

// A reader that has stopped delays the end by a moment.
TEST_F(BrokenPeer, TheEndDoesNotWaitForOneWhoDoesNotRead) {
  auto w = wire(std::chrono::milliseconds(10));
  const std::string text(Wire::kMostPacketBytes, 'x');
  for (int i = 0; i < 100; ++i) w->send_packet(1, bytes_of(text));
  w.reset();
}

}  // namespace
}  // namespace sluice::test
