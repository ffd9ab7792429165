#include "data/text_files.h"

#include <fnmatch.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// Whether a directory is of a pseudo file system, which shows the kernel instead of what somebody stored.
bool shows_kernel(const fs::path& directory) {
  constexpr std::array<unsigned long, 12> magics{
      PROC_SUPER_MAGIC,    SYSFS_MAGIC,        DEBUGFS_MAGIC, TRACEFS_MAGIC,  SECURITYFS_MAGIC, CGROUP_SUPER_MAGIC,
      CGROUP2_SUPER_MAGIC, DEVPTS_SUPER_MAGIC, BPF_FS_MAGIC,  PSTOREFS_MAGIC, EFIVARFS_MAGIC,   SELINUX_MAGIC};
  struct statfs status{};
  if (::statfs(directory.c_str(), &status) != 0) return false;
  const auto magic = static_cast<unsigned long>(status.f_type) & 0xffffffffUL;
  return std::ranges::find(magics, magic) != magics.end();
}

// The same of one that is met on the way; /dev is another file system on every machine.
bool is_pseudo(const fs::path& directory) {
  std::error_code ignored;
  return shows_kernel(directory) || fs::canonical(directory, ignored) == "/dev";
}

std::vector<fs::path> sorted(std::vector<fs::path> paths) {
  std::ranges::sort(paths, {}, [](const fs::path& path) { return path.native(); });
  return paths;
}

std::vector<fs::path> entries_of(const fs::path& directory, std::error_code& code) {
  std::vector<fs::path> entries;
  const fs::path place = directory.empty() ? fs::path(".") : directory;
  for (fs::directory_iterator entry(place, code), end; !code && entry != end; entry.increment(code))
    entries.push_back(directory / entry->path().filename());
  return sorted(std::move(entries));
}

class Search {
 public:
  Search(fs::path root, ProgressTimer& timer) : root_(std::move(root)), timer_(timer) {}

  // A file or directory that must be there.
  void add_named() {
    const fs::file_status status = status_of(root_);
    if (!fs::is_regular_file(status) && !fs::is_directory(status))
      throw user_error("{} is neither a file nor a directory", root_.string()).advise("give a file or a directory");
    if (fs::is_directory(status) && shows_kernel(root_)) {
      throw user_error("{} is a pseudo file system: the kernel's view of the machine, not text", root_.string())
          .advise("give a directory that holds text files");
    }
    found_.named = fs::is_regular_file(status);
    add(root_, status);
  }

  // All that the pattern matches, by the shell's rules, with ** for directories of any depth; nothing where it is no
  // pattern.
  bool add_matches() {
    if (root_.native().find_first_of("*?[") == std::string::npos) return false;
    std::vector<fs::path> matches{fs::path()};
    for (const fs::path& part : root_) {
      std::vector<fs::path> next;
      for (const fs::path& base : matches) extend(base, part, next);
      matches = std::move(next);
    }
    matches = sorted(std::move(matches));
    for (const fs::path& path : matches) add_if_readable(path.empty() ? fs::path(".") : path);
    return !matches.empty() || found_.systems.count > 0;
  }

  FoundFiles take() { return std::move(found_); }

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

  void report(const fs::path& place) {
    if (!timer_.due()) return;
    log::info("searching {} for text: {} files so far, now in {}; Ctrl-C ends it", printable_line(root_.string()),
              format_count(std::ssize(found_.files)), printable_line(place.string()));
  }

  // Whether the directory is one to look into.
  bool enter(const fs::path& directory) {
    report(directory);
    if (!is_pseudo(directory)) return true;
    found_.systems.add(name_below(directory, root_));
    return false;
  }

  // The directory and all below it, but for hidden ones and links.
  void descend(const fs::path& directory, std::vector<fs::path>& to) {
    std::error_code ignored;
    if (!directory.empty() && !fs::is_directory(directory, ignored)) return;
    if (!enter(directory.empty() ? fs::path(".") : directory)) return;
    to.push_back(directory);
    for (const fs::path& path : entries_of(directory, ignored)) {
      const bool below = fs::symlink_status(path, ignored).type() == fs::file_type::directory;
      if (below && !path.filename().native().starts_with('.')) descend(path, to);
    }
  }

  // What stands under `base` and the pattern's next part.
  void extend(const fs::path& base, const fs::path& part, std::vector<fs::path>& to) {
    std::error_code ignored;
    if (part == "**") return descend(base, to);
    if (part.native().find_first_of("*?[\\") == std::string::npos) {
      const fs::path path = base / part;
      if (fs::symlink_status(path, ignored).type() != fs::file_type::not_found) to.push_back(path);
      return;
    }
    if ((!base.empty() && !fs::is_directory(base, ignored)) || !enter(base.empty() ? fs::path(".") : base)) return;
    for (fs::path& path : entries_of(base, ignored)) {
      report(path);
      if (::fnmatch(part.c_str(), path.filename().c_str(), FNM_PERIOD) == 0) to.push_back(std::move(path));
    }
  }

  void add_if_readable(const fs::path& path) {
    std::error_code code;
    const fs::file_status status = fs::status(path, code);
    const bool endless = code == std::errc::too_many_symbolic_link_levels;
    if (status.type() == fs::file_type::none && !endless) throw unreadable(path, code);
    if (fs::is_regular_file(status) || (fs::is_directory(status) && enter(path))) add(path, status);
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
      found_.files.push_back(path);
    }
  }

  void add_directory(const fs::path& directory) {
    std::error_code code;
    const std::vector<fs::path> entries = entries_of(directory, code);
    if (code) throw unreadable(directory, code);
    for (const fs::path& path : entries) {
      report(directory);
      if (path.filename().native().starts_with('.')) {
        found_.hidden.add(name_below(path, root_));
      } else {
        add_if_readable(path);
      }
    }
  }

  fs::path root_;
  ProgressTimer& timer_;
  FoundFiles found_;
  std::set<fs::path> seen_;  // without links
};

}  // namespace

std::string name_below(const fs::path& path, const fs::path& root) {
  const std::string whole = path.string(), above = (root / "").string();
  return whole.starts_with(above) ? whole.substr(above.size()) : whole;
}

FoundFiles find_files(const fs::path& path, ProgressTimer& timer) {
  std::error_code code;
  Search search(path, timer);
  const bool exists = fs::exists(path, code);
  if (exists || code) {
    search.add_named();
  } else if (!search.add_matches()) {
    throw user_error("{} does not exist", path.string())
        .advise(path.native().starts_with('~') ? "~ is a word of the shell: write $HOME"
                                               : "give a file, a directory or a pattern with *");
  }
  return search.take();
}

}  // namespace sluice
