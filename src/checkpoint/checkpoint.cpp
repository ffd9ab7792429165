#include "checkpoint/checkpoint.h"

#include <sys/mman.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/safetensors.h"

namespace sluice {

namespace fs = std::filesystem;

bool is_checkpoint(const fs::path& directory) {
  std::error_code failed;
  return fs::exists(directory / kManifestFile, failed) || fs::exists(directory / rank_file_name(0), failed);
}

Error Checkpoint::damaged(const std::string& what) const {
  const std::string name = path_.string();
  return user_error("checkpoint {} is damaged: {}", name, what)
      .advise(fmt::format("to go on from the one before it, set this one aside: mv {} {}", quoted_for_shell(name),
                          quoted_for_shell(name + ".damaged")));
}

Checkpoint::Checkpoint(fs::path directory) : path_(std::move(directory)) {
  if (!path_.has_filename()) path_ = path_.parent_path();
  const fs::path file = path_ / kManifestFile;
  std::error_code failed;
  if (!fs::is_directory(path_, failed)) throw user_error("there is no checkpoint {}", path_.string());
  if (!fs::exists(file, failed)) throw damaged(fmt::format("it has no {}", kManifestFile));
  try {
    manifest_ = parse_manifest(read_file(file, kMaxManifestBytes), file.string());
  } catch (const Error& error) {
    throw error.hint().empty() ? damaged(error.what()) : error;
  }
  for (const HashedFile& hashed : manifest_.files) {
    files_.push_back({&hashed, (path_ / hashed.name).string(), mapped(hashed),
                      std::vector<std::atomic<bool>>(hashed.hashes.size())});
  }
  for (const File& opened : files_) add_slices_of(opened);
  if (const std::optional<std::string> fault = slices_.find_fault()) throw damaged(*fault);
}

MappedFile Checkpoint::mapped(const HashedFile& hashed) const {
  const fs::path file = path_ / hashed.name;
  std::error_code failed;
  if (!fs::exists(file, failed)) throw damaged(fmt::format("{} is missing", hashed.name));
  MappedFile mapped(file);
  if (const uint64_t bytes = mapped.bytes().size(); bytes != hashed.bytes) {
    throw damaged(fmt::format("{} has {} bytes, and the manifest says {}", hashed.name, bytes, hashed.bytes));
  }
  return mapped;
}

void Checkpoint::open_again() const {
  const std::scoped_lock lock(opening_);
  for (const File& file : files_) {
    if (!file.mapped) file.mapped.emplace(mapped(*file.hashed));
  }
}

void Checkpoint::add_slices_of(const File& file) {
  const std::span<const std::byte> bytes = file.mapped->bytes();
  const auto verify_to = [&](uint64_t end) {
    for (size_t block = 0; block < file.verified.size() && block * file.hashed->block_bytes < end; ++block) {
      verify(file, block);
    }
  };
  // How long the header is stands in its first block.
  verify_to(1);
  verify_to(safetensors::header_bytes(bytes));
  slices_.add_file(safetensors::parse_header(bytes, file.path), file.path);
}

void Checkpoint::require_parameter(std::string_view name, const Shape& shape) const {
  const auto found = parameters().find(name);
  if (found == parameters().end() || !found->second.kinds.contains(StateKind::value)) {
    throw user_error("checkpoint {} has no parameter {}", path_.string(), name);
  }
  const safetensors::Extents& stored = found->second.shape;
  bool same = std::ssize(stored) == shape.rank();
  for (int i = 0; same && i < shape.rank(); ++i) same = stored[static_cast<size_t>(i)] == shape[i];
  if (same) return;
  throw user_error("checkpoint {} has {} as {}, and the model's is {}", path_.string(), name,
                   safetensors::to_text(stored), shape.str());
}

uint64_t Checkpoint::bytes() const {
  uint64_t sum = 0;
  for (const HashedFile& file : manifest_.files) sum += file.bytes;
  return sum;
}

void Checkpoint::verify(const File& file, size_t block) const {
  if (file.verified[block]) return;
  const uint64_t begin = block * file.hashed->block_bytes;
  const uint64_t bytes = std::min(file.hashed->block_bytes, file.hashed->bytes - begin);
  if (hash64(file.mapped->bytes().subspan(begin, bytes)) == file.hashed->hashes[block]) {
    file.verified[block] = true;
    return;
  }
  throw damaged(fmt::format("bytes {} to {} of {} are not those that were written (their hash is another)", begin,
                            begin + bytes, file.hashed->name));
}

void Checkpoint::read(std::span<const Wanted> wanted, Pool* pool,
                      const std::function<void(uint64_t done, uint64_t all)>& progress) const {
  open_again();
  // Bytes [begin, begin + count elements) of a file, to element `at` of what is wanted.
  struct Copy {
    uint64_t begin = 0;
    safetensors::Type type = safetensors::Type::f32;
    Tensor to;
  };
  std::map<std::pair<size_t, size_t>, std::vector<Copy>> by_block;  // of file and block
  for (const Wanted& want : wanted) {
    const Tensor to = want.to.view({want.to.numel()});
    if (to.numel() == 0) continue;
    const std::vector<StoredRun> runs = slices_.runs(want.kind, want.parameter, want.first, to.numel());
    if (runs.empty()) {
      throw user_error("checkpoint {} has no elements {} to {} of {}", path_.string(), want.first,
                       want.first + to.numel(), slice_name(want.kind, want.parameter));
    }
    const safetensors::Type type = parameters().find(want.parameter)->second.kinds.at(want.kind);
    const uint64_t element = safetensors::size_of(type);
    for (const StoredRun& run : runs) {
      const uint64_t block_bytes = files_[run.file].hashed->block_bytes;
      for (int64_t at = 0; at < run.count;) {
        const uint64_t byte = run.begin + static_cast<uint64_t>(at) * element, block = byte / block_bytes;
        const int64_t count =
            std::min(run.count - at, static_cast<int64_t>(((block + 1) * block_bytes - byte) / element));
        require(count > 0, "an element of {} that two blocks share", slice_name(want.kind, want.parameter));
        by_block[{run.file, block}].push_back({byte, type, to.rows(run.first + at - want.first, count)});
        at += count;
      }
    }
  }
  std::vector<std::pair<std::pair<size_t, size_t>, std::vector<Copy>>> blocks(by_block.begin(), by_block.end());
  const auto bytes_of = [&](const std::pair<size_t, size_t>& place) {
    const HashedFile& file = *files_[place.first].hashed;
    return std::min(file.block_bytes, file.bytes - place.second * file.block_bytes);
  };
  std::mutex telling;
  uint64_t done = 0, all = 0;
  for (const auto& [place, copies] : blocks) all += bytes_of(place);
  const auto read_block = [&](int64_t i, int /*worker*/) {
    const auto& [place, copies] = blocks[static_cast<size_t>(i)];
    const File& file = files_[place.first];
    verify(file, place.second);
    for (const Copy& copy : copies) {
      const size_t bytes = static_cast<size_t>(copy.to.numel()) * safetensors::size_of(copy.type);
      safetensors::read_elements({.spec = {.name = {}, .type = copy.type, .shape = {copy.to.numel()}},
                                  .bytes = file.mapped->bytes().subspan(copy.begin, bytes)},
                                 0, copy.to);
    }
    if (!progress) return;
    const std::scoped_lock lock(telling);
    done += bytes_of(place);
    progress(done, all);
  };
  const auto count = static_cast<int64_t>(blocks.size());
  if (pool != nullptr) return pool->run(count, read_block);
  for (int64_t i = 0; i < count; ++i) read_block(i, 0);
}

void Checkpoint::forget() const {
  for (const File& file : files_) {
    if (!file.mapped) continue;
    const std::span<const std::byte> bytes = file.mapped->bytes();
    if (!bytes.empty()) ::madvise(const_cast<std::byte*>(bytes.data()), bytes.size(), MADV_DONTNEED);
  }
}

void Checkpoint::close() const {
  for (const File& file : files_) {
    file.mapped.reset();
    for (std::atomic<bool>& block : file.verified) block = false;
  }
}

}  // namespace sluice
