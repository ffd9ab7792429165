// Files: bounded reads, read-only mappings, durable writes. Every failure is an Error that names the path and the
// system's reason: kind user for what is missing, forbidden or too big, kind runtime for the rest.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

// The whole file; refuses one of more than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes);

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
