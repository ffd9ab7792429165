#include "cli/run_directory.h"

#include <fcntl.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/text.h"
#include "training/resume.h"
#include "training/step_records.h"

namespace sluice::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kMostRuns = 100'000;
constexpr std::string_view kRunFile = "run.json";  // the manifest that checkpoints will have, without a state

std::optional<FoundCheckpoint> newest_in(const fs::path& folder) {
  const std::vector<FoundCheckpoint> found = find_checkpoints(folder);
  return found.empty() ? std::nullopt : std::optional(found.back());
}

// "runs/a/" is runs/a, and a link is what it leads to.
fs::path real_path(const fs::path& path) {
  std::error_code failed;
  fs::path real = fs::canonical(path, failed);
  return failed ? path : fs::proximate(real, failed);
}

}  // namespace

fs::path RunDirectory::expected(const Config& config, const std::string& file,
                                const std::optional<std::string>& resume) {
  if (resume && !resume->empty()) return *resume;
  const fs::path usual = fs::path("runs") / fs::path(file).stem();
  return config.checkpoint.checkpoint_dir ? fs::path(*config.checkpoint.checkpoint_dir) : usual;
}

RunDirectory::RunDirectory(const Config& config, const std::string& file, const std::optional<std::string>& resume,
                           const Manifest& run)
    : config_(config), run_(run), usual_(fs::path("runs") / fs::path(file).stem()) {
  try {
    choose(resume);
  } catch (const Error& error) {
    if (!error.hint().empty()) throw;
    throw Error(error.kind(), error.what())
        .at(error.where())
        .advise(
            "checkpoint.checkpoint_dir names another place to save to; with checkpoint.enabled: false nothing is "
            "saved");
  }
  if (!checkpoint_) write_file_atomic(path() / kRunFile, manifest_text(run_));
}

void RunDirectory::choose(const std::optional<std::string>& resume) {
  const auto& restore_from = config_.checkpoint.restore_from;
  if (resume && !resume->empty()) {
    choose_named(*resume);
  } else if (restore_from && *restore_from != kLatest) {
    choose_restored(*restore_from);
  } else if (config_.checkpoint.checkpoint_dir) {
    choose_given(resume || restore_from);
  } else if (resume || restore_from) {
    choose_newest();
  } else {
    begin_anew();
  }
}

RunDirectory::~RunDirectory() {
  if (!folder_ || !made_) return;
  const fs::path made = path();
  std::error_code failed;
  int entries = 0;
  for (fs::directory_iterator entry(made, failed), end; !failed && entry != end; entry.increment(failed)) ++entries;
  // The lock's file, and whose it was to be.
  constexpr int kOfNoUse = 2;
  if (failed || entries > kOfNoUse) return;
  fs::remove_all(made, failed);
  if (made.parent_path() == usual_.parent_path()) fs::remove(made.parent_path(), failed);  // where it is empty
}

bool RunDirectory::of_this_run(const fs::path& checkpoint, std::string& why_not) const {
  why_not = describe_conflicts(resume_conflicts(Checkpoint(checkpoint).manifest(), run_));
  return why_not.empty();
}

void RunDirectory::go_on_from(const fs::path& checkpoint) {
  checkpoint_ = std::make_unique<Checkpoint>(checkpoint);
  const int64_t step = checkpoint_->manifest().run.step;
  if (const auto named = step_of_name(checkpoint.filename().string()); named && *named != step) {
    throw user_error("{} is the checkpoint of step {} by its manifest, under another one's name", checkpoint.string(),
                     step)
        .advise("give it its own name back, or set it aside");
  }
  const std::vector<config::Change> conflicts = resume_conflicts(checkpoint_->manifest(), run_);
  if (conflicts.empty()) return;
  throw user_error("checkpoint {} is of another run: {}", checkpoint.string(), describe_conflicts(conflicts))
      .advise(
          "set these back to go on with that run, or begin another one in a directory of its own "
          "(--checkpoint.checkpoint_dir)");
}

// Saves would meet them.
void RunDirectory::check_later(const fs::path& folder) const {
  for (const FoundCheckpoint& found : find_checkpoints(folder)) {
    std::error_code failed;
    if (found.step < checkpoint_->manifest().run.step || fs::equivalent(found.path, checkpoint_->path(), failed))
      continue;
    throw user_error("{} is step {}, and {} is there too, which is never written over", checkpoint_->path().string(),
                     checkpoint_->manifest().run.step, found.path.string())
        .advise(fmt::format("set the later ones aside (mv {} {}), or let this run have another directory "
                            "(--checkpoint.checkpoint_dir)",
                            quoted_for_shell(found.path.string()), quoted_for_shell(found.path.string() + ".aside")));
  }
}

void RunDirectory::choose_named(const fs::path& named) {
  const fs::path real = real_path(named);
  if (is_checkpoint(real)) {
    go_on_from(real);
    const fs::path folder = real.has_parent_path() ? real.parent_path() : fs::path(".");
    check_later(folder);
    folder_ = std::make_unique<CheckpointFolder>(folder);
    return;
  }
  const auto newest = newest_in(real);
  if (!newest) {
    throw user_error("there is no checkpoint in {}", named.string())
        .at("command line")
        .advise("leave the directory out: then the newest run of this configuration goes on, or one begins");
  }
  folder_ = std::make_unique<CheckpointFolder>(real);
  go_on_from(newest->path);
}

// checkpoint.restore_from: a checkpoint, by its path or its name in the run's directory. The run saves in its own.
void RunDirectory::choose_restored(const std::string& from) {
  const fs::path own = config_.checkpoint.checkpoint_dir.value_or(usual_.string());
  std::error_code failed;
  const fs::path path = fs::exists(from, failed) ? fs::path(from) : own / from;
  const fs::path checkpoint = is_checkpoint(path) ? path : newest_in(path).value_or(FoundCheckpoint{}).path;
  if (checkpoint.empty()) {
    throw user_error("checkpoint.restore_from {}: there is no such checkpoint", from)
        .at(config_.origin("checkpoint.restore_from").place())
        .advise("name a checkpoint's directory, or LATEST or LOWEST_VAL of the run's own");
  }
  go_on_from(real_path(checkpoint));
  const auto newest = newest_in(own);
  const bool elsewhere = real_path(checkpoint).parent_path() != real_path(own);
  // A run that was restored once and has come further since.
  if (config_.checkpoint.checkpoint_dir && newest && elsewhere && newest->step > checkpoint_->manifest().run.step) {
    log::info("{} has come further than checkpoint.restore_from {}", own.string(), from);
    folder_ = std::make_unique<CheckpointFolder>(own);
    return go_on_from(newest->path);
  }
  check_later(own);
  if (config_.checkpoint.checkpoint_dir) {
    folder_ = std::make_unique<CheckpointFolder>(own);
  } else {
    begin_anew();
  }
}

void RunDirectory::choose_given(bool may_resume) {
  const fs::path given = *config_.checkpoint.checkpoint_dir;
  if (given.empty()) {
    throw user_error("checkpoint.checkpoint_dir is empty")
        .at(config_.origin("checkpoint.checkpoint_dir").place())
        .advise("name a directory, or leave it out");
  }
  std::error_code failed;
  made_ = !fs::exists(given, failed);
  folder_ = std::make_unique<CheckpointFolder>(given);
  const auto newest = newest_in(given);
  if (!newest) {
    if (may_resume) log::info("there is no checkpoint in {} yet: the run begins", given.string());
    return;
  }
  if (!may_resume && config_.program != config::Program::nemo) {
    throw user_error("{} has checkpoints of a run already, up to step {}", given.string(), newest->step)
        .at(config_.origin("checkpoint.checkpoint_dir").place())
        .advise("to go on with it add --resume; to begin another one name another directory");
  }
  go_on_from(newest->path);
}

fs::path RunDirectory::numbered(int number) const {
  return number == 1 ? usual_ : fs::path(fmt::format("{}-{}", usual_.string(), number));
}

// runs/NAME, runs/NAME-2 and so on, those that are there.
std::vector<fs::path> RunDirectory::usual_runs() const {
  std::vector<fs::path> runs;
  const fs::path parent = usual_.parent_path();
  const std::string name = usual_.filename().string();
  std::error_code failed;
  for (fs::directory_iterator entry(parent, failed), end; !failed && entry != end; entry.increment(failed)) {
    const std::string file = entry->path().filename().string();
    const bool numbered =
        file.starts_with(name + "-") && file.find_first_not_of("0123456789", name.size() + 1) == std::string::npos;
    if (file == name || numbered) runs.push_back(entry->path());
  }
  std::ranges::sort(runs);
  return runs;
}

bool RunDirectory::begun_by_this_run(const fs::path& folder) const {
  const fs::path file = folder / kRunFile;
  std::error_code failed;
  if (!fs::exists(file, failed)) return false;
  return resume_conflicts(parse_manifest(read_file(file, kMaxManifestBytes), file.string()), run_).empty();
}

// Of all runs of this file the newest one of this configuration; else one of it that was ended before its first
// checkpoint.
void RunDirectory::choose_newest() {
  std::string others;
  std::optional<fs::path> found, without;
  fs::file_time_type newest_time = fs::file_time_type::min();
  std::error_code failed;
  for (const fs::path& folder : usual_runs()) {
    const auto newest = newest_in(folder);
    if (!newest) {
      if (begun_by_this_run(folder)) without = folder;
      continue;
    }
    std::string why_not;
    if (!of_this_run(newest->path, why_not)) {
      others = fmt::format(" ({}: {})", folder.string(), why_not);
      continue;
    }
    const auto time = fs::last_write_time(newest->path / kManifestFile, failed);
    if (found && time < newest_time) continue;
    found = folder;
    newest_time = time;
  }
  if (found) {
    folder_ = std::make_unique<CheckpointFolder>(*found);
    return go_on_from(newest_in(*found)->path);
  }
  if (without) {
    folder_ = std::make_unique<CheckpointFolder>(*without);
  } else {
    begin_anew();
  }
  log::info("there is no checkpoint of this configuration in {}*{}: the run begins in {}", usual_.string(), others,
            path().string());
}

void RunDirectory::begin_anew() {
  std::error_code failed;
  fs::create_directories(usual_.parent_path(), failed);
  if (failed) throw system_failure("create directory", usual_.parent_path(), failed.value());
  for (int number = 1; number < kMostRuns; ++number) {
    const fs::path folder = numbered(number);
    // Of two runs that begin at the same time one makes it.
    if (fs::create_directory(folder, failed)) {
      made_ = true;
      folder_ = std::make_unique<CheckpointFolder>(folder);
      return;
    }
    if (failed) throw system_failure("create directory", folder, failed.value());
  }
  throw user_error("there are {} runs beside {}", kMostRuns, usual_.string());
}

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
