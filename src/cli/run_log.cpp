#include "cli/run_log.h"

#include <fcntl.h>

#include <algorithm>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "training/step_records.h"

namespace sluice::cli {

namespace fs = std::filesystem;

RunLog::RunLog(fs::path path, int64_t step) : path_(std::move(path)) {
  go_back(step);
}

void RunLog::open() {
  file_.emplace(path_, O_WRONLY | O_CREAT | O_APPEND, "write", 0666);
}

void RunLog::go_back(int64_t step) {
  constexpr size_t kMostBytes = size_t{4} << 30;
  file_.reset();
  std::error_code failed;
  if (fs::exists(path_, failed)) {
    const std::string text = read_file(path_, kMostBytes);
    std::string kept;
    int64_t removed = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = std::string_view(text).substr(at, end - at);
      const std::optional<int64_t> of = step_of_record(line);
      if (of && *of <= step && end < text.size()) {
        kept += fmt::format("{}\n", line);
      } else {
        ++removed;
      }
      at = end + 1;
    }
    if (removed > 0) {
      write_file_atomic(path_, kept);
      log::info("{}: took out {} line{} of steps after {}, which are made again", path_.string(), removed,
                removed == 1 ? "" : "s", step);
    }
  }
  open();
}

void RunLog::write_line(const std::string& line) {
  if (lost_) return;
  try {
    write_all(*file_, line + "\n", path_);
  } catch (const Error& error) {
    lost_ = true;
    log::warn("{}; the run goes on without this log", error.what());
  }
}

}  // namespace sluice::cli
