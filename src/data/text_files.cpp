// Finding and reading the files of a text.
#include <glob.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "data/bytes.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

class FileList {
 public:
  // A file or directory that must be there.
  void add_named(const fs::path& path) {
    const fs::file_status status = status_of(path);
    if (!fs::is_regular_file(status) && !fs::is_directory(status))
      throw user_error("{} is neither a file nor a directory", path.string());
    add(path, status);
  }
  const std::vector<fs::path>& paths() const { return paths_; }

 private:
  static Error unreadable(const fs::path& path, const std::error_code& code) {
    return user_error("cannot read {}: {}", path.string(), code.message());
  }
  static fs::file_status status_of(const fs::path& path) {
    std::error_code code;
    const fs::file_status status = fs::status(path, code);
    if (status.type() == fs::file_type::none) throw unreadable(path, code);
    return status;
  }

  // A regular file or a directory, unless it was there before.
  void add(const fs::path& path, const fs::file_status& status) {
    std::error_code code;
    fs::path real = fs::canonical(path, code);
    if (code) throw unreadable(path, code);
    if (!seen_.insert(std::move(real)).second) return;
    if (fs::is_directory(status)) {
      add_directory(path);
    } else {
      paths_.push_back(path);
    }
  }

  void add_directory(const fs::path& directory) {
    std::error_code code;
    std::vector<fs::path> entries;
    for (fs::directory_iterator entry(directory, code), end; !code && entry != end; entry.increment(code))
      entries.push_back(entry->path());
    if (code) throw unreadable(directory, code);
    std::ranges::sort(entries, {}, [](const fs::path& path) { return path.native(); });
    for (const fs::path& path : entries) {
      const fs::file_status status = fs::status(path, code);
      const bool endless = code == std::errc::too_many_symbolic_link_levels;
      if (status.type() == fs::file_type::none && !endless) throw unreadable(path, code);
      if (fs::is_regular_file(status) || fs::is_directory(status)) add(path, status);
    }
  }

  std::vector<fs::path> paths_;
  std::set<fs::path> seen_;  // without links
};

// What the pattern matches, sorted; nothing when it is no pattern.
std::vector<fs::path> expand(const fs::path& pattern) {
  struct Matches : glob_t {
    Matches() : glob_t() {}
    ~Matches() { ::globfree(this); }
  } matches;
  if (pattern.native().find_first_of("*?[") == std::string::npos) return {};
  if (::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches) != 0) return {};
  std::vector<fs::path> paths(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  std::ranges::sort(paths, {}, [](const fs::path& path) { return path.native(); });
  return paths;
}

}  // namespace

std::shared_ptr<const ByteText> load_text(const fs::path& path, std::size_t max_bytes) {
  std::error_code code;
  FileList list;
  const bool exists = fs::exists(path, code);
  const std::vector<fs::path> matches = exists || code ? std::vector<fs::path>{} : expand(path);
  for (const fs::path& match : matches) list.add_named(match);
  if (matches.empty()) {
    if (!exists && !code)
      throw user_error("{} does not exist", path.string()).advise("give a file, a directory or a pattern with *");
    list.add_named(path);
  }
  if (list.paths().empty()) throw user_error("no files in {}", path.string());

  auto text = std::make_shared<ByteText>();
  text->name = path.string();
  for (const fs::path& file : list.paths()) {
    if (text->files > 0) text->bytes += '\0';
    const std::size_t left = max_bytes - std::min(max_bytes, text->bytes.size());
    const std::uintmax_t size = fs::file_size(file, code);
    if (!code && size > left) {
      throw user_error("the text in {} is larger than {}: {} has {} and {} files come before it", path.string(),
                       format_bytes(max_bytes), file.string(), format_bytes(size), text->files)
          .advise("give a path with less text");
    }
    text->bytes += read_file(file, left);
    ++text->files;
  }
  return text;
}

}  // namespace sluice
