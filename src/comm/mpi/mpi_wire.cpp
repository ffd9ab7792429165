#include "comm/mpi/mpi_wire.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/error.h"
#include "comm/mpi/calls.h"

namespace sluice::mpi {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kPacketTag = 0;
// MPI counts in int, and where memory is shared it copies a message within one of its calls: for so long it sees
// nothing else, so that two that send each other much would do it one after the other. Pieces of one bulk arrive in
// their order.
constexpr size_t kPieceBytes = size_t{2} << 20;
constexpr size_t kSentAtATime = 2;  // pieces of one bulk
constexpr std::chrono::milliseconds kMoment{1000};

}  // namespace

MpiWire::MpiWire(MPI_Comm all, bool& given_up) : given_up_(given_up), memory_(kSlots * kMostPacketBytes) {
  check(MPI_Comm_rank(all, &process_), "MPI_Comm_rank");
  check(MPI_Comm_size(all, &processes_), "MPI_Comm_size");
  check(MPI_Comm_dup(all, &packets_), "MPI_Comm_dup");
  check(MPI_Comm_dup(all, &bulk_), "MPI_Comm_dup");
  slots_.fill(MPI_REQUEST_NULL);
  for (size_t slot = 0; slot < kSlots; ++slot) post(slot);
}

MpiWire::~MpiWire() {
  if (!given_up_) abandon_bulk();
  // The last words of this process, then what nobody will say.
  if (!given_up_ && !end(requests_)) give_up("packets were not taken");
  for (MPI_Request& slot : slots_) cancel(slot);
  for (MPI_Request& drain : drains_) cancel(drain);
  if (!given_up_ && !(end(slots_) && end(drains_))) give_up("what was coming did not arrive whole");
  if (given_up_) return;
  MPI_Comm_free(&packets_);
  MPI_Comm_free(&bulk_);
}

// --- sending --------------------------------------------------------------------------------------------------------

void MpiWire::send_packet(int to, std::span<const std::byte> bytes) {
  require(!bytes.empty() && bytes.size() <= kMostPacketBytes, "a packet of {} bytes", bytes.size());
  if (given_up_) return;
  UnderWay packet{.kind = Kind::packet, .peer = to};
  if (!spare_.empty()) {
    packet.buffer = std::move(spare_.back());
    spare_.pop_back();
  }
  packet.buffer.assign(bytes.begin(), bytes.end());
  MPI_Request request = MPI_REQUEST_NULL;
  const int code =
      MPI_Isend(packet.buffer.data(), static_cast<int>(bytes.size()), MPI_BYTE, to, kPacketTag, packets_, &request);
  if (!worked(code, "MPI_Isend")) return;
  requests_.push_back(request);
  under_way_.push_back(std::move(packet));
}

void MpiWire::send_bulk(int to, uint32_t id, std::span<const std::byte> bytes) {
  if (given_up_) return;
  const auto [bulk, is_new] = pieces_.insert({{Kind::send, to, id}, Pieces{bytes}});
  require(is_new, "bulk {} to process {} is under way already", id, to);
  for (size_t i = 0; i < kSentAtATime; ++i) send_piece(to, id, bulk->second);
}

void MpiWire::receive_bulk(int from, uint32_t id, std::span<std::byte> bytes) {
  if (given_up_) return;
  pieces_[{Kind::receive, from, id}].left = (bytes.size() + kPieceBytes - 1) / kPieceBytes;
  for (; !bytes.empty() && !given_up_; bytes = bytes.subspan(std::min(kPieceBytes, bytes.size()))) {
    MPI_Request request = MPI_REQUEST_NULL;
    const auto count = static_cast<int>(std::min(kPieceBytes, bytes.size()));
    if (!worked(MPI_Irecv(bytes.data(), count, MPI_BYTE, from, static_cast<int>(id), bulk_, &request), "MPI_Irecv")) {
      return;
    }
    requests_.push_back(request);
    under_way_.push_back({.kind = Kind::receive, .peer = from, .id = id});
  }
}

void MpiWire::send_piece(int to, uint32_t id, Pieces& bulk) {
  if (bulk.unsent.empty() || given_up_) return;
  const std::span<const std::byte> piece = bulk.unsent.first(std::min(kPieceBytes, bulk.unsent.size()));
  MPI_Request request = MPI_REQUEST_NULL;
  const int code =
      MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, to, static_cast<int>(id), bulk_, &request);
  if (!worked(code, "MPI_Isend")) return;
  bulk.unsent = bulk.unsent.subspan(piece.size());
  ++bulk.left;
  requests_.push_back(request);
  under_way_.push_back({.kind = Kind::send, .peer = to, .id = id});
}

void MpiWire::post(size_t slot) {
  if (given_up_) return;
  worked(MPI_Irecv(memory_.data() + slot * kMostPacketBytes, static_cast<int>(kMostPacketBytes), MPI_BYTE,
                   MPI_ANY_SOURCE, kPacketTag, packets_, &slots_[slot]),
         "MPI_Irecv");
}

// --- looking --------------------------------------------------------------------------------------------------------

void MpiWire::progress(Events& events, Clock::time_point deadline, bool waited_for) {
  const Clock::time_point begin = Clock::now();
  while (true) {
    const uint32_t heard = bell_.count();
    const bool woken = std::exchange(heard_, heard) != heard;
    if (poll(events) || woken) return;
    const Clock::time_point now = Clock::now();
    if (now >= deadline) return;
    pause(now - begin, deadline, waited_for);
  }
}

void MpiWire::pause(Clock::duration idle, Clock::time_point deadline, bool waited_for) {
  using std::chrono::microseconds;
  constexpr microseconds kSpin{10}, kYield{100}, kYieldOfBulk{50'000}, kShortest{20}, kQuickest{200}, kLongest{2000};
  if (given_up_) return bell_.sleep(heard_, std::min(deadline, Clock::now() + kMoment));
  // What was begun here goes on only while both ends look, and data under way as fast as they do.
  const bool quick = waited_for || !requests_.empty();
  if (quick && idle < kSpin) return;
  if (quick && idle < (pieces_.empty() ? kYield : kYieldOfBulk)) return std::this_thread::yield();
  // A tenth of the time that nothing has happened for.
  const Clock::duration sleep =
      std::clamp<Clock::duration>(idle / 10, kShortest, quick ? (pieces_.empty() ? kQuickest : kShortest) : kLongest);
  bell_.sleep(heard_, std::min(deadline, Clock::now() + sleep));
}

bool MpiWire::poll(Events& events) {
  bool any = false;
  if (!given_up_) any = take_packets(events);
  if (!given_up_) any = take_ended(events) || any;
  if (given_up_ && !told_) {
    report_lost(events);
    any = true;
  }
  return any;
}

bool MpiWire::take_packets(Events& events) {
  // No more than this before bulk has its turn.
  for (size_t taken = 0; taken < kSlots; ++taken) {
    int come = 0;
    MPI_Status status;
    MPI_Request& request = slots_[next_slot_];
    if (!worked(MPI_Test(&request, &come, &status), "receiving a packet") || come == 0) return taken > 0;
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    const size_t slot = next_slot_;
    next_slot_ = (next_slot_ + 1) % kSlots;
    events.packet(status.MPI_SOURCE, std::span(memory_).subspan(slot * kMostPacketBytes, static_cast<size_t>(bytes)));
    post(slot);
  }
  return true;
}

bool MpiWire::take_ended(Events& events) {
  if (requests_.empty()) return false;
  indices_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0;
  const int code =
      MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, indices_.data(), statuses_.data());
  if (code == MPI_ERR_IN_STATUS) {
    for (int i = 0; i < count; ++i) {
      if (!worked(statuses_[static_cast<size_t>(i)].MPI_ERROR, "a transfer")) return false;
    }
  }
  if (!worked(code, "MPI_Testsome") || count <= 0) return false;
  std::vector<UnderWay> ended;
  size_t kept = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (requests_[i] == MPI_REQUEST_NULL) {
      ended.push_back(std::move(under_way_[i]));
      continue;
    }
    if (kept != i) {
      requests_[kept] = requests_[i];
      under_way_[kept] = std::move(under_way_[i]);
    }
    ++kept;
  }
  requests_.resize(kept);
  under_way_.resize(kept);
  // These may begin others.
  for (UnderWay& each : ended) {
    if (each.kind == Kind::packet) {
      spare_.push_back(std::move(each.buffer));
      continue;
    }
    const auto bulk = pieces_.find({each.kind, each.peer, each.id});
    if (bulk == pieces_.end()) continue;
    send_piece(each.peer, each.id, bulk->second);
    if (--bulk->second.left > 0) continue;
    pieces_.erase(bulk);
    if (each.kind == Kind::send) events.sent(each.peer, each.id);
    if (each.kind == Kind::receive) events.received(each.peer, each.id);
  }
  return true;
}

// --- where it goes wrong ---------------------------------------------------------------------------------------------

void MpiWire::abandon_bulk() {
  pieces_.clear();
  if (given_up_) return;
  std::vector<MPI_Request> bulk;
  std::vector<UnderWay> what;
  size_t kept = 0;
  for (size_t i = 0; i < requests_.size(); ++i) {
    if (under_way_[i].kind != Kind::packet) {
      bulk.push_back(requests_[i]);
      what.push_back(std::move(under_way_[i]));
      if (what.back().kind == Kind::receive) cancel(bulk.back());
      continue;
    }
    if (kept != i) {
      requests_[kept] = requests_[i];
      under_way_[kept] = std::move(under_way_[i]);
    }
    ++kept;
  }
  requests_.resize(kept);
  under_way_.resize(kept);
  std::vector<bool> cancelled;
  if (!end(bulk, &cancelled)) return give_up("a transfer under way did not end when it was abandoned");
  for (size_t i = 0; i < what.size() && !given_up_; ++i) {
    if (!cancelled[i]) continue;
    if (!drained_) drained_ = std::make_unique_for_overwrite<std::byte[]>(kPieceBytes);
    drains_.push_back(MPI_REQUEST_NULL);
    worked(MPI_Irecv(drained_.get(), static_cast<int>(kPieceBytes), MPI_BYTE, what[i].peer,
                     static_cast<int>(what[i].id), bulk_, &drains_.back()),
           "MPI_Irecv");
  }
}

void MpiWire::cancel(MPI_Request& request) {
  if (given_up_ || request == MPI_REQUEST_NULL) return;
  worked(MPI_Cancel(&request), "MPI_Cancel");
}

bool MpiWire::end(std::span<MPI_Request> requests, std::vector<bool>* cancelled) {
  statuses_.resize(requests.size());
  const auto ended = [&] {
    int all = 0;
    // What has failed has ended too.
    const int code = MPI_Testall(static_cast<int>(requests.size()), requests.data(), &all, statuses_.data());
    return all != 0 || code != MPI_SUCCESS;
  };
  if (!comes(ended, kMoment)) return false;
  for (size_t i = 0; cancelled != nullptr && i < requests.size(); ++i) {
    int back = 0;
    MPI_Test_cancelled(&statuses_[i], &back);
    cancelled->push_back(back != 0);
  }
  return true;
}

bool MpiWire::worked(int code, const char* what) {
  if (code == MPI_SUCCESS) return true;
  give_up(fmt::format("{} failed: {}", what, text_of(code)));
  return false;
}

void MpiWire::give_up(const std::string& why) {
  if (given_up_) return;
  given_up_ = true;
  why_ = why;
}

void MpiWire::report_lost(Events& events) {
  told_ = true;
  for (int process = 0; process < processes_; ++process) {
    if (process != process_) events.lost(process, why_);
  }
}

}  // namespace sluice::mpi
