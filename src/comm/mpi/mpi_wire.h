// A wire of MPI's messages. MPI has to be asked whether something has come: quickly while a thread waits for others,
// else every few milliseconds.
#pragma once

#include <mpi.h>

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "comm/bell.h"
#include "comm/processes/wire.h"

namespace sluice::mpi {

class MpiWire final : public Wire {
 public:
  // Between the processes of `all`, which all make theirs at the same time. `given_up`, which outlives the object, is
  // set where something was left under way that MPI could not take back: MPI must not be called any more then.
  MpiWire(MPI_Comm all, bool& given_up);
  ~MpiWire() override;
  MpiWire(const MpiWire&) = delete;
  MpiWire& operator=(const MpiWire&) = delete;
  MpiWire(MpiWire&&) = delete;
  MpiWire& operator=(MpiWire&&) = delete;

  int process() const override { return process_; }
  int processes() const override { return processes_; }
  void send_packet(int to, std::span<const std::byte> bytes) override;
  void send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) override;
  void receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) override;
  void progress(Events& events, std::chrono::steady_clock::time_point deadline, bool waited_for) override;
  void wake() override { bell_.ring(); }
  // MPI takes back receives whose message has not begun to come, and nothing else. In their place stand receives
  // into memory of the wire's own, so that the senders are done with what comes yet. What is under way is waited for, a
  // second at most, since both ends go on with it. If it does not end, because the other process hangs, no call of MPI
  // follows, for only these read and write the memory here; all others count as lost then. Where a network writes into
  // memory on its own that cannot be prevented.
  void abandon_bulk() override;

 private:
  enum class Kind : uint8_t { packet, send, receive };
  struct UnderWay {
    Kind kind = Kind::packet;
    int peer = 0;
    uint32_t id = 0;
    std::vector<std::byte> buffer;  // of a packet
  };
  struct Pieces {  // of bulk
    std::span<const std::byte> unsent;
    size_t left = 0;  // those under way
  };

  bool poll(Events& events);
  bool take_packets(Events& events);
  bool take_ended(Events& events);
  void post(size_t slot);
  void send_piece(int to, uint32_t id, Pieces& bulk);
  // Whether a call has worked; else nothing is asked of MPI any more.
  bool worked(int code, const char* what);
  void give_up(const std::string& why);
  void report_lost(Events& events);
  // Where MPI takes it back, which leaves null.
  void cancel(MPI_Request& request);
  // Whether they end within the time. `cancelled`, if any, is told which were taken back.
  bool end(std::span<MPI_Request> requests, std::vector<bool>* cancelled = nullptr);
  void pause(std::chrono::steady_clock::duration idle, Bell::Clock::time_point deadline, bool waited_for);

  static constexpr size_t kSlots = 16;

  bool& given_up_;
  std::string why_;
  bool told_ = false;  // of the loss of all
  MPI_Comm packets_ = MPI_COMM_NULL;
  MPI_Comm bulk_ = MPI_COMM_NULL;
  int process_ = 0;
  int processes_ = 0;

  // Packets are received into slots that take turns: MPI fills them in the order in which they were posted, so those of
  // one process are looked at in the order in which it sent them.
  std::vector<std::byte> memory_;
  std::array<MPI_Request, kSlots> slots_{};
  size_t next_slot_ = 0;

  std::vector<MPI_Request> requests_;  // what was begun here, and with the same index
  std::vector<UnderWay> under_way_;
  std::map<std::tuple<Kind, int, uint32_t>, Pieces> pieces_;  // of bulk that has not ended
  std::vector<std::vector<std::byte>> spare_;                 // buffers of packets
  std::vector<MPI_Request> drains_;                           // receives in the place of abandoned ones
  std::unique_ptr<std::byte[]> drained_;                      // for all of them: nobody looks at it
  std::vector<int> indices_;
  std::vector<MPI_Status> statuses_;

  Bell bell_;
  uint32_t heard_ = 0;
};

}  // namespace sluice::mpi
