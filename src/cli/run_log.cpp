#include "cli/run_log.h"

#include <fcntl.h>
#include <unistd.h>

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

void RunLog::sync() const {
  ::fsync(file_->number());
}

void RunLog::go_back(int64_t step) {
  constexpr size_t kMostBytes = size_t{4} << 30;
  file_.reset();
  std::error_code failed;
  if (fs::exists(path_, failed)) {
    const std::string text = read_file(path_, kMostBytes);
    std::string kept;
    int64_t later = 0, torn = 0;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string_view line = std::string_view(text).substr(at, end - at);
      const std::optional<int64_t> of = step_of_record(line);
      if (of && *of <= step && end < text.size()) {
        kept += fmt::format("{}\n", line);
      } else {
        ++(of && *of > step ? later : torn);
      }
      at = end + 1;
    }
    if (later + torn > 0) write_file_atomic(path_, kept);
    const auto lines = [](int64_t count) { return fmt::format("{} line{}", count, count == 1 ? "" : "s"); };
    if (later > 0) {
      log::info("{}: took out {} of steps after {}, which are made again", path_.string(), lines(later), step);
    }
    if (torn > 0) log::info("{}: took out {} that a crash has cut short or damaged", path_.string(), lines(torn));
  }
  open();
}

void RunLog::write_line(const std::string& line) {
  const off_t whole = ::lseek(file_->number(), 0, SEEK_END);
  try {
    write_all(*file_, line + "\n", path_);
    if (lost_) log::info("{} is written again; it lacks what could not be written", path_.string());
    lost_ = false;
  } catch (const Error& error) {
    // What remains where even this fails is taken out when the run goes on.
    const bool mended = whole >= 0 && ::ftruncate(file_->number(), whole) == 0;
    if (!lost_) {
      log::warn("{}; the run goes on without this log{}", error.what(), mended ? "" : ", whose last line is cut short");
    }
    lost_ = true;
  }
}

}  // namespace sluice::cli
