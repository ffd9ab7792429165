// Writes a rank file on a thread of its own while the rank goes on. What the rank leaves as it is - weights and
// moments, until the next optimizer step - is written from where it is; what is not written by then is copied aside, or
// waited for where there is no room.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "checkpoint/manifest.h"
#include "checkpoint/rank_file.h"

namespace sluice {

class RankWriter {
 public:
  struct Options {
    // Host memory to copy to, in blocks of the file (block_bytes_of).
    std::span<std::byte> staging = {};
    // Copies elements to host memory, on the thread that calls release(). Null: they are in host memory, and are
    // written from there as well. Without it there must be room for a block.
    std::function<void(const Tensor& from, std::byte* to)> copy = {};
    // Threads that release() copies with, where `copy` is null.
    int copiers = 1;
  };

  // Makes the file `path` and begins. The slices' memory must outlive the object, unchanged until release() returns.
  RankWriter(const std::vector<StateSlice>& slices, const std::filesystem::path& path, Options options);
  // Ends the thread; a file that was not finished is left incomplete.
  ~RankWriter();
  RankWriter(const RankWriter&) = delete;
  RankWriter& operator=(const RankWriter&) = delete;
  RankWriter(RankWriter&&) = delete;
  RankWriter& operator=(RankWriter&&) = delete;

  // Returns when the slices may be changed: all is copied or written, or writing has failed.
  void release();
  // Whether finish() would return at once.
  bool ended() const;
  // Waits for the end.
  void wait() const;
  // The same; throws what failed. The file is complete and synchronised.
  HashedFile finish();
  // What it has done so far; complete when the end has come.
  struct Work {
    std::vector<double> written_at;  // seconds from the beginning: a block more was written, not yet synchronised
    uint64_t copied_bytes = 0;       // aside, by release()
    double copying_seconds = 0;
  };
  Work work() const;

 private:
  struct Staged {
    size_t block = 0;
    std::span<std::byte> bytes;
  };
  void write_all();
  void write_blocks();
  void copy_blocks(int copiers);
  void write_block(size_t block, const std::vector<std::span<const std::byte>>& pieces);
  void copy_block(size_t block, std::span<std::byte> to) const;

  RankFile file_;
  Options options_;
  HashedFile hashed_;
  std::filesystem::path path_;
  Descriptor descriptor_;
  Stopwatch watch_;

  mutable std::mutex mutex_;  // of what follows
  mutable std::condition_variable changed_;
  size_t next_ = 0;  // the first block that nobody has taken
  std::deque<Staged> staged_;
  std::vector<std::span<std::byte>> free_;
  bool in_place_ = false;  // a block is being written from where it is
  int copying_ = 0;        // blocks that are being copied
  bool abandoned_ = false;
  bool ended_ = false;
  Work work_;
  std::exception_ptr failure_;
  std::jthread thread_;  // the last member: it uses the others
};

}  // namespace sluice
