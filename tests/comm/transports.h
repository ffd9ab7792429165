// The ways ranks communicate, as the tests of the communicator's contract see them. A rank has memory that its
// transport reads and a stream that may run behind the host: values go in and out through the backend.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "comm/communicator.h"
#include "device/backend.h"
#include "tensor/memory.h"

namespace sluice::test {

struct TransportRank {
  Communicator& world;
  Stream& stream;
  Backend& backend;
  Memory& memory;
};

struct Transport {
  std::string name;
  std::vector<int> sizes = {};       // numbers of ranks, ascending
  Kernel carrier = Kernel::threads;  // what Communicator::transport says
  // Whether sums are added in rank order, messages are told apart by their tags, and a maximum keeps NaNs.
  bool rank_order = true;
  bool tags = true;
  bool float_maxima = true;
  std::function<void(int ranks, const std::function<void(TransportRank&)>& body)> run = {};
  // Of so many ranks, those that run in this process of the test.
  std::function<int(int ranks)> here = [](int ranks) { return ranks; };
  // Why it cannot run here; then its tests are skipped.
  std::string missing = {};

  int most_ranks() const { return sizes.back(); }
  friend std::ostream& operator<<(std::ostream& out, const Transport& t) { return out << t.name; }
};

Transport inproc_transport(bool async);
// Two processes, the first with about half of the ranks, or as many processes as ranks.
enum class Processes : uint8_t { two, each };
Transport process_transport(Processes processes, bool async);
// The processes that mpirun has started; each runs the tests. Missing elsewhere.
Transport mpi_transport(bool async);
// Ranks that share a GPU: the emulated one, whose streams run as late as they may, and a real one.
Transport inproc_on_emulated_gpu();
Transport inproc_on_gpu();
Transport emulated_nccl();
Transport emulated_nccl(Processes processes);
// NCCL itself, its calls made for groups of one too.
Transport nccl_on_one_gpu();
Transport nccl_on_one_gpu(Processes processes);
Transport nccl_on_many_gpus();
Transport nccl_on_many_gpus(Processes processes);

// Values in a rank's memory.
template <class T>
class Array {
 public:
  Array(TransportRank& rank, const std::vector<T>& values)
      : rank_(rank), numel_(std::ssize(values)), bytes_((values.size() + 1) * sizeof(T)) {
    data_ = rank.memory.allocate(MemoryKind::communication, bytes_);
    if (numel_ > 0) rank.backend.write(tensor(), values.data());
  }
  ~Array() { rank_.memory.release(MemoryKind::communication, data_, bytes_); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  Tensor tensor() const { return {data_, {numel_}, DTypeOf<T>::value}; }
  std::vector<T> values() const {
    std::vector<T> values(static_cast<size_t>(numel_));
    rank_.backend.read(tensor(), values.data());
    return values;
  }

 private:
  TransportRank& rank_;
  int64_t numel_;
  size_t bytes_;
  void* data_ = nullptr;
};

}  // namespace sluice::test
