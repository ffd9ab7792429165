// What a wire of MPI promises beyond what couriers show of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "comm/mpi/under_mpirun.h"

namespace sluice::test {
namespace {

using Clock = std::chrono::steady_clock;

// Events of a wire, as they came.
struct Seen final : Wire::Events {
  std::vector<std::pair<int, std::vector<std::byte>>> packets;
  std::vector<std::pair<int, uint32_t>> sends, receives;

  void packet(int from, std::span<const std::byte> bytes) override {
    packets.emplace_back(from, std::vector(bytes.begin(), bytes.end()));
  }
  void sent(int to, uint32_t id) override { sends.emplace_back(to, id); }
  void received(int from, uint32_t id) override { receives.emplace_back(from, id); }
  void lost(int process, const std::string& why) override { ADD_FAILURE() << "lost " << process << ": " << why; }
};

class MpiWires : public testing::Test {
 protected:
  MpiWires() { wire_ = session().connect(share_of(process(), processes(), processes()), processes(), members_); }

  static int process() { return session().process(); }
  static int processes() { return session().processes(); }
  int next() const { return (process() + 1) % processes(); }
  int last() const { return (process() + processes() - 1) % processes(); }
  Wire& wire() { return *wire_; }
  const Seen& seen() const { return seen_; }

  void until(const std::function<bool()>& holds) {
    const Clock::time_point deadline = Clock::now() + std::chrono::seconds(20);
    while (!holds() && Clock::now() < deadline) wire_->progress(seen_, deadline, /*waited_for=*/true);
    ASSERT_TRUE(holds());
  }
  void look(Clock::time_point deadline) { wire_->progress(seen_, deadline, /*waited_for=*/false); }
  // With all others, which may be a barrier ahead.
  void barrier() {
    const std::byte word{0x42};
    for (int to = 0; to < processes(); ++to) {
      if (to != process()) wire_->send_packet(to, {&word, 1});
    }
    ++barriers_;
    until([&] {
      for (int from = 0; from < processes(); ++from) {
        const auto is_its = [&](const auto& packet) { return packet.first == from; };
        if (from != process() && std::ranges::count_if(seen_.packets, is_its) < barriers_) return false;
      }
      return true;
    });
  }

 private:
  std::vector<Member> members_;
  std::unique_ptr<Wire> wire_;
  Seen seen_;
  int barriers_ = 0;
};

std::vector<std::byte> text(size_t bytes, int seed) {
  std::vector<std::byte> list(bytes);
  for (size_t i = 0; i < bytes; ++i) list[i] = static_cast<std::byte>(i * 31 + static_cast<size_t>(seed) + (i >> 12));
  return list;
}

TEST_F(MpiWires, PacketsOfAllSizesArriveInOrder_under_mpirun) {
  // Large ones take MPI longer than small ones behind them.
  const std::vector<size_t> sizes = {1, Wire::kMostPacketBytes, 7, 5000, 60'000, 2, 4096, 4097, 30'000, 3};
  constexpr int kRounds = 8;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < sizes.size(); ++i) wire().send_packet(next(), text(sizes[i], round));
  }
  until([&] { return seen().packets.size() == kRounds * sizes.size(); });
  for (size_t i = 0; i < seen().packets.size(); ++i) {
    EXPECT_EQ(seen().packets[i].first, last());
    EXPECT_TRUE(seen().packets[i].second == text(sizes[i % sizes.size()], static_cast<int>(i / sizes.size()))) << i;
  }
}

TEST_F(MpiWires, BulkOfManyPiecesArrivesWhole_under_mpirun) {
  const std::vector<std::byte> out = text((size_t{65} << 20) + 5, process());
  const std::vector<std::byte> few = text(3, process());
  std::vector<std::byte> in(out.size()), in_few(few.size());
  constexpr uint32_t kFirst = (1U << 30) - 1, kSecond = 0;
  wire().receive_bulk(last(), kFirst, in);
  wire().receive_bulk(last(), kSecond, in_few);
  barrier();
  wire().send_bulk(next(), kFirst, out);
  wire().send_bulk(next(), kSecond, few);
  until([&] { return seen().sends.size() == 2 && seen().receives.size() == 2; });
  EXPECT_TRUE(in == text(out.size(), last()));
  EXPECT_TRUE(in_few == text(few.size(), last()));
}

// Its sender is done with it all the same: else it would wait for it when it abandons, and then talk to nobody.
TEST_F(MpiWires, AbandonedBulkIsNotWritten_under_mpirun) {
  for (const size_t bytes : {size_t{1}, size_t{100'000}, size_t{40} << 20}) {
    std::vector<std::byte> in(bytes);
    const std::vector<std::byte> out = text(in.size(), 1);
    wire().receive_bulk(last(), 5, in);
    wire().abandon_bulk();
    barrier();
    wire().send_bulk(next(), 5, out);
    const size_t sent = seen().sends.size();
    until([&] { return seen().sends.size() == sent + 1; });
    barrier();
    EXPECT_TRUE(seen().receives.empty());
    EXPECT_TRUE(std::ranges::all_of(in, [](std::byte each) { return each == std::byte{0}; })) << bytes;
  }
}

TEST_F(MpiWires, AWakeEndsTheWait_under_mpirun) {
  barrier();
  look(Clock::now());
  wire().wake();
  const Clock::time_point begin = Clock::now();
  look(begin + std::chrono::seconds(20));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
  barrier();
}

}  // namespace
}  // namespace sluice::test
