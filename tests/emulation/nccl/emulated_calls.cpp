#include <nccl.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "comm/reduce.h"

namespace sluice::emulation::queued {

namespace {

using Bytes = std::vector<char>;

Bytes copy_of(const void* data, size_t bytes) {
  const auto* begin = static_cast<const char*>(data);
  return bytes == 0 ? Bytes() : Bytes(begin, begin + bytes);
}

void write(void* to, const char* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

DType dtype_of(ncclDataType_t type) {
  switch (type) {
    case ncclUint8:
      return DType::u8;
    case ncclInt32:
      return DType::i32;
    case ncclInt64:
      return DType::i64;
    case ncclFloat32:
      return DType::f32;
    case ncclFloat64:
      return DType::f64;
    case ncclBfloat16:
      return DType::bf16;
  }
  return DType::u8;
}

// One rank's part of a collective: what must agree, and a copy of what it brings.
struct Part {
  std::vector<int64_t> terms;
  Bytes in;
};

struct Mail {
  Bytes data;
  bool taken = false;
};

// What the ranks of a communicator share.
struct Meeting {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0;
  int joined = 0;
  int connected = 0;  // ranks that have made their first call

  std::vector<const Part*> parts;
  int arrived = 0;
  int moved = 0;
  int64_t round = 0;
  std::map<std::pair<int, int>, std::deque<std::shared_ptr<Mail>>> mail;  // (from, to)
};

// One rank's side. Tasks on streams hold it, so that an aborted communicator may be gone before they are.
struct Side {
  std::shared_ptr<Meeting> meeting;
  int rank = 0;
  // Under the meeting's mutex:
  bool aborted = false;
  bool first_call = true;
  bool finalizing = false;
  int polls = 0;    // to answer before what is asked for is under way
  int pending = 0;  // on streams
  ncclResult_t error = ncclSuccess;
  std::vector<std::function<void()>> waiting;  // to be put on their streams after the polls
};
using SidePtr = std::shared_ptr<Side>;
constexpr int kPolls = 2;

void hang(std::unique_lock<std::mutex>& lock, Side& side, bool mismatch) {
  if (mismatch) side.error = ncclInvalidUsage;
  side.meeting->changed.wait(lock, [&] { return side.aborted; });
}

using Parts = std::vector<const Part*>;
void meet(Side& side, const Part& part, const std::function<void(const Parts&)>& move) {
  Meeting& m = *side.meeting;
  std::unique_lock lock(m.mutex);
  m.changed.wait(lock, [&] { return side.aborted || m.moved == 0; });
  if (side.aborted) return;
  for (const Part* other : m.parts) {
    if (other != nullptr && other->terms != part.terms) return hang(lock, side, true);
  }
  const int64_t round = m.round;
  m.parts[static_cast<size_t>(side.rank)] = &part;
  if (++m.arrived == m.size) {
    m.moved = m.size;
    m.changed.notify_all();
  }
  m.changed.wait(lock, [&] { return side.aborted || m.arrived == m.size; });
  if (m.arrived < m.size) {
    m.parts[static_cast<size_t>(side.rank)] = nullptr;
    --m.arrived;
    return;
  }
  // All are here: it is carried through.
  lock.unlock();
  move(m.parts);
  lock.lock();
  if (--m.moved == 0) {
    m.arrived = 0;
    std::fill(m.parts.begin(), m.parts.end(), nullptr);
    ++m.round;
    m.changed.notify_all();
  }
  m.changed.wait(lock, [&] { return m.round != round; });
}

struct Message {
  bool sends = false;
  void* data = nullptr;
  size_t bytes = 0;
  int peer = 0;
};

void exchange(Side& side, const std::vector<Message>& messages) {
  Meeting& m = *side.meeting;
  std::vector<std::shared_ptr<Mail>> sent;
  std::unique_lock lock(m.mutex);
  for (const Message& message : messages) {
    if (!message.sends) continue;
    sent.push_back(std::make_shared<Mail>());
    sent.back()->data = copy_of(message.data, message.bytes);
    m.mail[{side.rank, message.peer}].push_back(sent.back());
  }
  m.changed.notify_all();
  for (const Message& message : messages) {
    if (message.sends) continue;
    auto& box = m.mail[{message.peer, side.rank}];
    m.changed.wait(lock, [&] { return side.aborted || !box.empty(); });
    if (side.aborted) return;
    const std::shared_ptr<Mail> mail = box.front();
    if (mail->data.size() != message.bytes) return hang(lock, side, true);
    box.pop_front();
    write(message.data, mail->data.data(), message.bytes);
    mail->taken = true;
    m.changed.notify_all();
  }
  const auto all_taken = [&] {
    return std::all_of(sent.begin(), sent.end(), [](const auto& mail) { return mail->taken; });
  };
  m.changed.wait(lock, [&] { return side.aborted || all_taken(); });
}

// Identities that not all ranks have used yet.
struct Registry {
  std::mutex mutex;
  uint64_t next = 1;
  std::map<uint64_t, std::shared_ptr<Meeting>> meetings;
};
Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

struct EmulatedComm {
  SidePtr side;
};

namespace {

// `run` goes on the stream when the communicator has answered its polls.
ncclResult_t start(ncclComm_t comm, cudaStream_t stream, std::function<void(Side&)> run) {
  const SidePtr side = comm->side;
  const std::lock_guard guard(side->meeting->mutex);
  if (side->polls > 0) return ncclInvalidUsage;  // the last call is still in progress
  if (side->first_call) {
    side->first_call = false;
    ++side->meeting->connected;
  }
  side->polls = kPolls;
  ++side->pending;
  side->waiting.emplace_back([side, stream, run = std::move(run)] {
    enqueue(stream, [side, run] {
      run(*side);
      const std::lock_guard ended(side->meeting->mutex);
      --side->pending;
    });
  });
  return ncclInProgress;
}

ncclResult_t collective(ncclComm_t comm, cudaStream_t stream, std::vector<int64_t> terms, const void* in, size_t bytes,
                        std::function<void(const Side&, const Parts&)> move) {
  return start(comm, stream, [terms = std::move(terms), in, bytes, move = std::move(move)](Side& side) {
    const Part part{terms, copy_of(in, bytes)};
    meet(side, part, [&](const Parts& parts) { move(side, parts); });
  });
}

// out = elements [first, first + count) of the parts' sums or maxima.
void reduce_parts(const Parts& parts, ncclDataType_t type, ncclRedOp_t op, void* out, size_t first, size_t count) {
  const DType dtype = dtype_of(type);
  std::vector<const void*> in;
  for (size_t r = parts.size(); r-- > 0;) in.push_back(parts[r]->in.data() + first * size_of(dtype));
  void* const target = out;
  reduce_buffers(dtype, op == ncclSum ? ReduceOp::sum : ReduceOp::max, {&target, 1}, in, static_cast<int64_t>(count));
}

struct Group {
  bool open = false;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<Message> messages;
};
Group& group() {
  thread_local Group mine;
  return mine;
}

ncclResult_t message(const Message& message, ncclComm_t comm, cudaStream_t stream) {
  if (!group().open) {
    return start(comm, stream, [message](Side& side) { exchange(side, {message}); });
  }
  if (group().comm != nullptr && (group().comm != comm || group().stream != stream)) return ncclInvalidUsage;
  group().comm = comm;
  group().stream = stream;
  group().messages.push_back(message);
  return ncclSuccess;
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  return *version = 10203, ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const std::lock_guard guard(registry().mutex);
  const uint64_t number = registry().next++;
  registry().meetings[number] = std::make_shared<Meeting>();
  std::memcpy(id->internal, &number, sizeof(number));
  return ncclSuccess;
}

int64_t identities() {
  const std::lock_guard guard(registry().mutex);
  return static_cast<int64_t>(registry().next) - 1;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclInvalidUsage ? "invalid usage" : "refused by the emulation";
}

const char* ncclGetLastError(ncclComm_t /*comm*/) {
  return "the ranks' calls do not match";
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof(number));
  const std::lock_guard guard(registry().mutex);
  const auto entry = registry().meetings.find(number);
  if (entry == registry().meetings.end()) return ncclInvalidArgument;
  const auto side = std::make_shared<Side>();
  side->meeting = entry->second;
  side->rank = rank;
  side->polls = kPolls;
  {
    const std::lock_guard shared(side->meeting->mutex);
    side->meeting->size = size;
    side->meeting->parts.resize(static_cast<size_t>(size));
    if (++side->meeting->joined == size) registry().meetings.erase(entry);
  }
  *comm = new EmulatedComm{side};
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* result) {
  Side& side = *comm->side;
  std::vector<std::function<void()>> ready;
  {
    const std::lock_guard guard(side.meeting->mutex);
    const Meeting& m = *side.meeting;
    const bool alone = m.joined < m.size || (!side.first_call && m.connected < m.size);
    *result = side.error;
    if (side.error != ncclSuccess) return ncclSuccess;
    if ((side.polls > 0 && (alone || --side.polls > 0)) || (side.finalizing && side.pending > 0)) {
      *result = ncclInProgress;
      return ncclSuccess;
    }
    ready.swap(side.waiting);
  }
  for (const auto& put : ready) put();
  return ncclSuccess;
}

// In progress until what is on streams has ended.
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  const std::lock_guard guard(comm->side->meeting->mutex);
  comm->side->finalizing = true;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  std::vector<std::function<void()>> never;  // these hold the side
  {
    const std::lock_guard guard(comm->side->meeting->mutex);
    comm->side->aborted = true;
    never.swap(comm->side->waiting);
    comm->side->meeting->changed.notify_all();
  }
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclAllGather(const void* in, void* out, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = count * size_of(dtype_of(type));
  return collective(comm, stream, {0, static_cast<int64_t>(bytes)}, in, bytes, [=](const Side&, const Parts& parts) {
    for (size_t r = 0; r < parts.size(); ++r) write(static_cast<char*>(out) + r * bytes, parts[r]->in.data(), bytes);
  });
}

ncclResult_t ncclReduceScatter(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * size_of(dtype_of(type)) * static_cast<size_t>(comm->side->meeting->size);
  return collective(comm, stream, {1, static_cast<int64_t>(count), type, op}, in, bytes,
                    [=](const Side& side, const Parts& parts) {
                      reduce_parts(parts, type, op, out, static_cast<size_t>(side.rank) * count, count);
                    });
}

ncclResult_t ncclAllReduce(const void* in, void* out, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
  const size_t bytes = count * size_of(dtype_of(type));
  return collective(comm, stream, {2, static_cast<int64_t>(count), type, op}, in, bytes,
                    [=](const Side&, const Parts& parts) { reduce_parts(parts, type, op, out, 0, count); });
}

ncclResult_t ncclBroadcast(const void* in, void* out, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  const size_t bytes = count * size_of(dtype_of(type));
  return collective(
      comm, stream, {3, static_cast<int64_t>(bytes), root}, in, bytes,
      [=](const Side&, const Parts& parts) { write(out, parts[static_cast<size_t>(root)]->in.data(), bytes); });
}

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return message({true, const_cast<void*>(data), count * size_of(dtype_of(type)), peer}, comm, stream);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream) {
  return message({false, data, count * size_of(dtype_of(type)), peer}, comm, stream);
}

ncclResult_t ncclGroupStart() {
  group().open = true;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  Group done;
  std::swap(done, group());
  if (done.messages.empty()) return ncclSuccess;
  return start(done.comm, done.stream, [messages = std::move(done.messages)](Side& side) { exchange(side, messages); });
}

}  // namespace sluice::emulation::queued
