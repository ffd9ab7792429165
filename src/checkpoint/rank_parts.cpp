#include "checkpoint/rank_parts.h"

#include "base/file.h"
#include "checkpoint/rank_file.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

fs::path place_of_part(const fs::path& directory, const std::string& file) {
  return directory / (file + ".hashes");
}

}  // namespace

void leave_part(const fs::path& directory, const HashedFile& file) {
  write_file_atomic(place_of_part(directory, file.name), hashed_file_text(file));
}

std::vector<HashedFile> collect_parts(const fs::path& directory, int ranks) {
  std::vector<HashedFile> files;
  for (int rank = 0; rank < ranks; ++rank) {
    const fs::path part = place_of_part(directory, rank_file_name(rank));
    files.push_back(parse_hashed_file(read_file(part, kMaxManifestBytes), part.string()));
    fs::remove(part);
  }
  return files;
}

}  // namespace sluice
