// Wires between "processes" of one test, which are threads: what a wire may do and sockets do rarely - bulk that
// overtakes packets, arrivals in any order between different senders - happens often here.
#pragma once

#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "comm/processes/wire.h"

namespace sluice::test {

class MemoryWires {
 public:
  explicit MemoryWires(int processes) : ends_(static_cast<size_t>(processes)) {}

  std::unique_ptr<Wire> wire(int process) { return std::make_unique<End>(*this, process); }
  // As if the process had been killed.
  void cut(int process) {
    const std::lock_guard guard(mutex_);
    cut_[process] = true;
    for (Inbox& each : ends_) each.told = true;
    changed_.notify_all();
  }
  // From here on the process does nothing, and is not seen to have ended.
  void stop(int process) {
    const std::lock_guard guard(mutex_);
    stopped_[process] = true;
  }

 private:
  struct Bulk {
    int from = 0;
    uint32_t id = 0;
    std::span<const std::byte> bytes;
  };
  struct Inbox {
    std::deque<std::pair<int, std::vector<std::byte>>> packets;
    std::deque<Bulk> bulk;
    std::deque<std::pair<int, uint32_t>> sent;
    std::map<std::pair<int, uint32_t>, std::span<std::byte>> expected;
    std::map<int, bool> lost;
    bool abandoned = false;
    bool woken = false;
    bool told = false;
  };

  class End final : public Wire {
   public:
    End(MemoryWires& wires, int process) : wires_(wires), process_(process) {}
    ~End() override { wires_.cut(process_); }
    int process() const override { return process_; }
    int processes() const override { return static_cast<int>(wires_.ends_.size()); }

    void send_packet(int to, std::span<const std::byte> bytes) override {
      put(to, [&](Inbox& inbox) { inbox.packets.emplace_back(process_, std::vector(bytes.begin(), bytes.end())); });
    }
    void send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) override {
      put(to, [&](Inbox& inbox) { inbox.bulk.push_front({process_, id, bytes}); });
    }
    void receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) override {
      const std::lock_guard guard(wires_.mutex_);
      mine().expected[{from, id}] = bytes;
    }
    void progress(Events& events, std::chrono::steady_clock::time_point deadline, bool /*waited_for*/) override {
      std::vector<std::function<void()>> news;
      {
        std::unique_lock lock(wires_.mutex_);
        const auto any = [&] { return mine().told || mine().woken; };
        wires_.changed_.wait_until(lock, deadline, any);
        mine().told = mine().woken = false;
        if (wires_.stopped_[process_]) return;
        // Bulk goes first: it may overtake packets.
        for (; !mine().bulk.empty(); mine().bulk.pop_front()) take(mine().bulk.front(), events, news);
        for (; !mine().sent.empty(); mine().sent.pop_front()) {
          news.emplace_back([&events, one = mine().sent.front()] { events.sent(one.first, one.second); });
        }
        for (; !mine().packets.empty(); mine().packets.pop_front()) {
          news.emplace_back(
              [&events, one = std::move(mine().packets.front())] { events.packet(one.first, one.second); });
        }
        for (const auto& [other, cut] : wires_.cut_) {
          if (!cut || other == process_ || mine().lost[other]) continue;
          mine().lost[other] = true;
          news.emplace_back([&events, gone = other] { events.lost(gone, "the test has cut it"); });
        }
      }
      for (const auto& each : news) each();
    }
    void wake() override {
      const std::lock_guard guard(wires_.mutex_);
      mine().woken = true;
      wires_.changed_.notify_all();
    }
    void abandon_bulk() override {
      const std::lock_guard guard(wires_.mutex_);
      mine().abandoned = true;
      for (Inbox& each : wires_.ends_)
        std::erase_if(each.bulk, [&](const Bulk& bulk) { return bulk.from == process_; });
    }

   private:
    Inbox& mine() { return wires_.ends_[static_cast<size_t>(process_)]; }
    template <class Put>
    void put(int to, Put&& what) {
      const std::lock_guard guard(wires_.mutex_);
      if (wires_.cut_[process_] || wires_.cut_[to]) return;
      Inbox& inbox = wires_.ends_[static_cast<size_t>(to)];
      what(inbox);
      inbox.told = true;
      wires_.changed_.notify_all();
    }
    void take(const Bulk& bulk, Events& events, std::vector<std::function<void()>>& news) {
      if (mine().abandoned) return;
      const auto node = mine().expected.extract({bulk.from, bulk.id});
      const std::span<std::byte> to = node.mapped();
      std::memcpy(to.data(), bulk.bytes.data(), to.size());
      Inbox& sender = wires_.ends_[static_cast<size_t>(bulk.from)];
      sender.sent.emplace_back(process_, bulk.id);
      sender.told = true;
      wires_.changed_.notify_all();
      news.emplace_back([&events, from = bulk.from, id = bulk.id] { events.received(from, id); });
    }

    MemoryWires& wires_;
    int process_;
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Inbox> ends_;
  std::map<int, bool> cut_;
  std::map<int, bool> stopped_;
};

}  // namespace sluice::test
