#include "comm/sockets/socket_stream.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <thread>
#include <vector>

#include "comm/sockets/socket_processes.h"
#include "comm/sockets/sockets.h"

namespace sluice::test {
namespace {

// A TCP connection whose buffers hold little.
std::pair<SocketStream, SocketStream> connection() {
  const Listener listener(0, "127.0.0.1");
  SocketAddress here;
  Descriptor one(-1);
  EXPECT_EQ(connect_to(*SocketAddress::parse("127.0.0.1", listener.port()), soon(), one), 0);
  EXPECT_TRUE(wait_for(listener.number(), POLLIN, soon()));
  Descriptor other = accept_one(listener.number(), here);
  const int bytes = 16384;
  ::setsockopt(other.number(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  return {SocketStream(std::move(one)), SocketStream(std::move(other))};
}

size_t write_all_it_takes(SocketStream& stream) {
  std::vector<std::byte> data(size_t{1} << 20);
  std::array<iovec, 1> parts{iovec{.iov_base = data.data(), .iov_len = data.size()}};
  size_t written = 0;
  while (const size_t count = stream.write(parts)) written += count;
  return written;
}

// The other side writes too, before and after the end: an answer of the system to that must not drop what it is sent.
TEST(SocketStream, AllThatWasWrittenArrivesWhereTheOtherSideWritesIntoTheEnd) {
  auto [ending, other] = connection();
  const size_t written = write_all_it_takes(ending);
  size_t received = 0;
  std::thread reader([&other = other, &received] {
    std::array<std::byte, 4096> data{};
    std::array<iovec, 1> parts{iovec{.iov_base = data.data(), .iov_len = data.size()}};
    other.write(parts);
    while (!other.ended()) {
      if (!wait_for(other.number(), POLLIN, soon())) return;
      received += other.read(parts);
      other.write(parts);
    }
  });
  {
    const SocketStream closed = std::move(ending);
    closed.finish();
    while (closed.delivering()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  reader.join();
  EXPECT_GT(written, size_t{65536});
  EXPECT_EQ(received, written);
}

}  // namespace
}  // namespace sluice::test
