// Files: bounded reads, read-only mappings, durable writes, what is one file. Every failure is an Error that names the
// path and the system's reason: kind user for what is missing, forbidden or too big, kind runtime for the rest.
#pragma once

#include <sys/types.h>

#include <compare>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

// The whole file; refuses one of more than `max_bytes`, and what is no regular file (a pipe might never end).
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes);
// The same for what a person named, which may also be a pipe or a terminal (/dev/stdin, <(...)): it is read to its end,
// and who waits for it is told. User error for a pipe that no program writes to, and for other devices.
std::string read_input(const std::filesystem::path& path, std::size_t max_bytes);

// What a file is, whatever its name: hard and symbolic links to it have the same.
struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  auto operator<=>(const FileId&) const = default;
};
// None where nothing is there, or it cannot be seen.
std::optional<FileId> file_id(const std::filesystem::path& path);

// Whether another file system begins at this directory, so that it cannot be renamed.
bool is_mount_point(const std::filesystem::path& directory);

// Bytes that can still be written where `path` is or would be; none where the file system does not say.
std::optional<uint64_t> free_bytes(const std::filesystem::path& path);

// Replaces `path` by what is appended, whole or not at all: temporary name beside it; commit() does fsync, rename,
// fsync of the directory. Without commit() nothing is left.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) = delete;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void append(std::string_view contents);
  void append(std::span<const std::byte> contents);
  void commit();

 private:
  struct Open;
  std::filesystem::path path_;
  std::unique_ptr<Open> open_;
};
void write_file_atomic(const std::filesystem::path& path, std::string_view contents);

// A regular file mapped read-only; the bytes live as long as this object and are read as they are touched.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sluice
