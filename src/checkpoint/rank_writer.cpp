#include "checkpoint/rank_writer.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/streaming_copy.h"
#include "base/thread_signals.h"

namespace sluice {
namespace {

// So that a full disk shows before anything is written. Some file systems cannot do it.
void reserve(const Descriptor& file, uint64_t bytes, const std::filesystem::path& path) {
  if (::fallocate(file.number(), 0, 0, static_cast<off_t>(bytes)) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) throw system_failure("write", path, errno);
}

void write_at(const Descriptor& file, std::vector<iovec> pieces, uint64_t offset, const std::filesystem::path& path) {
  constexpr size_t kMostPieces = 1024;  // that one call takes (IOV_MAX)
  size_t first = 0;
  while (first < pieces.size()) {
    const auto count = static_cast<int>(std::min(pieces.size() - first, kMostPieces));
    const ssize_t written = ::pwritev(file.number(), pieces.data() + first, count, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw system_failure("write", path, errno);
    offset += static_cast<uint64_t>(written);
    auto left = static_cast<size_t>(written);
    while (first < pieces.size() && left >= pieces[first].iov_len) left -= pieces[first++].iov_len;
    if (left == 0) continue;
    pieces[first].iov_base = static_cast<char*>(pieces[first].iov_base) + left;
    pieces[first].iov_len -= left;
  }
}

std::span<const std::byte> in_host_memory(const RankFile::Part& part) {
  if (!part.values) return part.header;
  return {static_cast<const std::byte*>(part.values.raw()), part.values.bytes()};
}

}  // namespace

RankWriter::RankWriter(const std::vector<StateSlice>& slices, const std::filesystem::path& path, Options options)
    : file_(slices),
      options_(std::move(options)),
      hashed_{.name = path.filename().string(),
              .bytes = file_.bytes(),
              .block_bytes = file_.block_bytes(),
              .hashes = std::vector<uint64_t>(file_.blocks())},
      path_(path),
      descriptor_(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, "create", 0666) {
  reserve(descriptor_, file_.bytes(), path_);
  const size_t block = file_.block_bytes();
  for (size_t i = 0; i < std::min(options_.staging.size() / block, file_.blocks()); ++i) {
    free_.push_back(options_.staging.subspan(i * block, block));
  }
  require(!options_.copy || !free_.empty(), "no room to copy a block of {} bytes to", block);
  thread_ = std::jthread([this] { write_all(); });
}

RankWriter::~RankWriter() {
  const std::scoped_lock lock(mutex_);
  abandoned_ = true;
  changed_.notify_all();
}

void RankWriter::copy_block(size_t block, std::span<std::byte> to) const {
  size_t at = 0;
  for (const RankFile::Part& part : file_.parts(block)) {
    if (part.values && options_.copy) {
      options_.copy(part.values, to.data() + at);
    } else {
      streaming_copy(to.data() + at, in_host_memory(part).data(), part.bytes());
    }
    at += part.bytes();
  }
}

void RankWriter::release() {
  std::unique_lock lock(mutex_);
  const int copiers = next_ < file_.blocks() && !options_.copy ? options_.copiers : 1;
  lock.unlock();
  std::vector<std::jthread> others;
  for (int i = 1; i < copiers; ++i) others.emplace_back([this, copiers] { copy_blocks(copiers); });
  copy_blocks(copiers);
  others.clear();
  lock.lock();
  changed_.wait(lock, [&] { return !in_place_ || ended_; });
}

// One of so many threads that do so.
void RankWriter::copy_blocks(int copiers) {
  std::unique_lock lock(mutex_);
  while (next_ < file_.blocks() && !ended_) {
    if (free_.empty()) {
      changed_.wait(lock);
      continue;
    }
    const Staged staged{next_++, free_.back()};
    free_.pop_back();
    ++copying_;
    lock.unlock();
    const Stopwatch watch;
    copy_block(staged.block, staged.bytes);
    const double seconds = watch.seconds();
    lock.lock();
    --copying_;
    work_.copied_bytes += file_.bytes_of_block(staged.block);
    work_.copying_seconds += seconds / copiers;
    staged_.push_back(staged);
    changed_.notify_all();
  }
}

bool RankWriter::ended() const {
  const std::scoped_lock lock(mutex_);
  return ended_;
}

RankWriter::Work RankWriter::work() const {
  const std::scoped_lock lock(mutex_);
  return work_;
}

void RankWriter::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_; });
}

HashedFile RankWriter::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ended_; });
  if (failure_) std::rethrow_exception(failure_);
  return hashed_;
}

void RankWriter::write_all() {
  block_signals();
  std::exception_ptr failure;
  try {
    write_blocks();
    if (::fsync(descriptor_.number()) != 0) throw system_failure("sync", path_, errno);
    if (const int code = descriptor_.close(); code != 0) throw system_failure("close", path_, code);
  } catch (...) {
    failure = std::current_exception();
  }
  const std::scoped_lock lock(mutex_);
  failure_ = failure;
  ended_ = true;
  changed_.notify_all();
}

void RankWriter::write_blocks() {
  std::unique_lock lock(mutex_);
  while (true) {
    const auto may_take = [&] { return !options_.copy && next_ < file_.blocks(); };
    const auto complete = [&] { return next_ == file_.blocks() && staged_.empty() && copying_ == 0; };
    changed_.wait(lock, [&] { return abandoned_ || !staged_.empty() || may_take() || complete(); });
    if (abandoned_) throw runtime_failure("writing {} was given up", path_.string());
    if (complete()) return;
    // Copies first: their room is wanted.
    if (!staged_.empty()) {
      const Staged staged = staged_.front();
      staged_.pop_front();
      lock.unlock();
      write_block(staged.block, {staged.bytes.first(file_.bytes_of_block(staged.block))});
      lock.lock();
      work_.written_at.push_back(watch_.seconds());
      free_.push_back(staged.bytes);
    } else {
      const size_t block = next_++;
      in_place_ = true;
      lock.unlock();
      std::vector<std::span<const std::byte>> pieces;
      for (const RankFile::Part& part : file_.parts(block)) pieces.push_back(in_host_memory(part));
      write_block(block, pieces);
      lock.lock();
      work_.written_at.push_back(watch_.seconds());
      in_place_ = false;
    }
    changed_.notify_all();
  }
}

void RankWriter::write_block(size_t block, const std::vector<std::span<const std::byte>>& pieces) {
  Hasher hasher;
  std::vector<iovec> vectors;
  for (const std::span<const std::byte> piece : pieces) {
    hasher.add(piece);
    vectors.push_back({const_cast<std::byte*>(piece.data()), piece.size()});
  }
  hashed_.hashes[block] = hasher.take();
  write_at(descriptor_, std::move(vectors), block * file_.block_bytes(), path_);
}

}  // namespace sluice
