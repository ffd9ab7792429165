// A checkpoint on disk, read into any layout: a directory of rank files (rank_file.h) and their manifest. What a layout
// wants is cut with what the files hold; every block is held against its hash before anything of it is believed.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/manifest.h"
#include "checkpoint/slice_table.h"
#include "device/pool.h"

namespace sluice {

// Whether a directory is one, or was one before it was damaged.
bool is_checkpoint(const std::filesystem::path& directory);

class Checkpoint {
 public:
  // Reads the manifest and every file's header. User error that names the file where anything is missing, of another
  // size or altered, or where the files together do not hold every parameter exactly once.
  explicit Checkpoint(std::filesystem::path directory);

  const std::filesystem::path& path() const { return path_; }
  const Manifest& manifest() const { return manifest_; }
  uint64_t bytes() const;

  // By name.
  const std::map<std::string, StoredParameter, std::less<>>& parameters() const { return slices_.parameters(); }
  // User error unless it has the values of this parameter, in this shape.
  void require_parameter(std::string_view name, const Shape& shape) const;

  // Elements [first, first + to.numel()) of a parameter, into a dense tensor of floating type in host memory; another
  // type than the stored one is converted.
  struct Wanted {
    StateKind kind = StateKind::value;
    std::string_view parameter;
    int64_t first = 0;
    Tensor to;
  };
  // By all threads of the pool, or the caller's alone where that is null. `progress`: bytes of the files' blocks. User
  // error that names the file and the block whose hash differs, or what is wanted and not there. From any thread.
  void read(std::span<const Wanted> wanted, Pool* pool,
            const std::function<void(uint64_t done, uint64_t all)>& progress = {}) const;
  // Gives back the memory of this process that holds what was read of the files; it is read again where it is wanted.
  void forget() const;
  // Lets go of the files, whose room on the disk is free only then where they are removed. What is read after that is
  // opened anew, and held against its hashes. Not while another thread reads.
  void close() const;

 private:
  struct File {
    const HashedFile* hashed = nullptr;
    std::string path;
    mutable std::optional<MappedFile> mapped;  // none after close()
    // By block: those that had their hash once are not read again for it, however many small reads they serve.
    mutable std::vector<std::atomic<bool>> verified;
  };

  Error damaged(const std::string& what) const;
  MappedFile mapped(const HashedFile& hashed) const;
  void open_again() const;
  void add_slices_of(const File& file);
  void verify(const File& file, size_t block) const;

  std::filesystem::path path_;
  Manifest manifest_;
  std::vector<File> files_;
  mutable std::mutex opening_;
  SliceTable slices_;
};

}  // namespace sluice
