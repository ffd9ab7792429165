#include "cli/run_directory.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/output.h"
#include "base/text.h"
#include "training/resume.h"

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

// runs/NAME, of a configuration's file.
fs::path usual_directory(const std::string& file) {
  const int descriptor = output_place(file).descriptor;
  // A number such as that of /dev/fd/63 is another one each time.
  const fs::path name = descriptor == 0 ? "stdin" : descriptor > 0 ? "unnamed" : fs::path(file).stem();
  return fs::path("runs") / name;
}

// "Is it there?" has no answer where it cannot be looked for.
bool is_there(const fs::path& path) {
  std::error_code failed;
  const bool there = fs::exists(path, failed);
  if (failed) throw system_failure("read", path, failed.value());
  return there;
}

}  // namespace

fs::path RunDirectory::expected(const Config& config, const std::string& file,
                                const std::optional<std::string>& resume) {
  if (resume && !resume->empty()) return *resume;
  return config.checkpoint.checkpoint_dir ? fs::path(*config.checkpoint.checkpoint_dir) : usual_directory(file);
}

RunDirectory::RunDirectory(const Config& config, const std::string& file, const std::optional<std::string>& resume,
                           const Manifest& run)
    : config_(config), run_(run), usual_(usual_directory(file)) {
  const bool may_resume = resume || config.checkpoint.restore_from || config.program == config::Program::nemo;
  const bool named = resume && !resume->empty();
  try {
    choose(resume);
    folder_->require_free_names(checkpoint_ ? checkpoint_->manifest().run.step : 0);
    goes_on_ = has_own_logs(may_resume);
    has_own_log_ = goes_on_ && same_log();
    if (!goes_on_) set_logs_aside();
  } catch (const Error& error) {
    if (!error.hint().empty()) throw;
    throw Error(error.kind(), error.what())
        .at(error.where())
        .advise(
            named ? "name the directory of a run, or one of its checkpoints, that can be read and written here"
                  : "checkpoint.checkpoint_dir names another place to save to; with checkpoint.enabled: false nothing "
                    "is saved");
  }
  if (!saved_here()) write_file_atomic(path() / kRunFile, manifest_text(run_));
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
  if (is_there(real / kManifestFile) || is_checkpoint(real)) {
    go_on_from(real);
    folder_ = std::make_unique<CheckpointFolder>(real.has_parent_path() ? real.parent_path() : fs::path("."));
    // The run that had the lock may have saved since, and a link leads elsewhere.
    go_on_from(real_path(named));
    return check_later(path());
  }
  if (!newest_in(real)) {
    throw user_error("there is no checkpoint in {}", named.string())
        .at("command line")
        .advise("leave the directory out: then the newest run of this configuration goes on, or one begins");
  }
  folder_ = std::make_unique<CheckpointFolder>(real);
  go_on_from(newest_in(real)->path);
}

// checkpoint.restore_from: a checkpoint, by its path or its name in the run's directory. The run saves in its own.
void RunDirectory::choose_restored(const std::string& from) {
  const fs::path own = config_.checkpoint.checkpoint_dir.value_or(usual_.string());
  const auto find = [&] {
    const fs::path path = is_there(from) ? fs::path(from) : own / from;
    const bool itself = is_there(path / kManifestFile) || is_checkpoint(path);
    return itself ? path : newest_in(path).value_or(FoundCheckpoint{}).path;
  };
  fs::path checkpoint = find();
  if (checkpoint.empty()) {
    throw user_error("checkpoint.restore_from {}: there is no such checkpoint", from)
        .at(config_.origin("checkpoint.restore_from").place())
        .advise("name a checkpoint's directory, or LATEST or LOWEST_VAL of the run's own");
  }
  go_on_from(real_path(checkpoint));
  if (!config_.checkpoint.checkpoint_dir) return begin_anew();
  folder_ = std::make_unique<CheckpointFolder>(own);
  // The run that had the lock may have saved since.
  checkpoint = find();
  go_on_from(real_path(checkpoint));
  const auto newest = newest_in(own);
  const bool elsewhere = real_path(checkpoint).parent_path() != real_path(own);
  // A run that was restored once and has come further since.
  if (newest && elsewhere && newest->step > checkpoint_->manifest().run.step) {
    log::info("{} has come further than checkpoint.restore_from {}", own.string(), from);
    return go_on_from(newest->path);
  }
  check_later(own);
}

void RunDirectory::choose_given(bool may_resume) {
  const fs::path given = *config_.checkpoint.checkpoint_dir;
  if (given.empty()) {
    throw user_error("checkpoint.checkpoint_dir is empty")
        .at(config_.origin("checkpoint.checkpoint_dir").place())
        .advise("name a directory, or leave it out");
  }
  made_ = !is_there(given);
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
  for (const fs::path& entry : entries_of(parent)) {
    const std::string file = entry.filename().string();
    const bool numbered =
        file.starts_with(name + "-") && file.find_first_not_of("0123456789", name.size() + 1) == std::string::npos;
    if ((file == name || numbered) && is_there(entry) && fs::is_directory(entry)) runs.push_back(entry);
  }
  std::ranges::sort(runs);
  return runs;
}

bool RunDirectory::begun_by_this_run(const fs::path& folder) const {
  const fs::path file = folder / kRunFile;
  if (!is_there(file)) return false;
  const std::string text = read_file(file, kMaxManifestBytes);
  try {
    return resume_conflicts(parse_manifest(text, file.string()), run_).empty();
  } catch (const Error&) {
    return false;  // another program's
  }
}

// Whether the run goes on from a checkpoint of its own directory.
bool RunDirectory::saved_here() const {
  std::error_code failed;
  return checkpoint_ && fs::equivalent(fs::absolute(checkpoint_->path()).parent_path(), path(), failed);
}

// Whether logging.jsonl was the same file when this run was here before.
bool RunDirectory::same_log() const {
  constexpr const char* kKey = "logging.jsonl";
  std::map<std::string, std::string> before;
  if (saved_here()) {
    before = checkpoint_->manifest().settings;
  } else {
    const fs::path file = path() / kRunFile;
    before = parse_manifest(read_file(file, kMaxManifestBytes), file.string()).settings;
  }
  return before[kKey] == run_.settings.at(kKey);
}

bool RunDirectory::has_own_logs(bool may_resume) const {
  return saved_here() || (may_resume && begun_by_this_run(path()));
}

void RunDirectory::set_logs_aside() const {
  for (const std::string_view name : {kTrainingLog, kValidationLog}) {
    const fs::path log = path() / name;
    std::error_code failed;
    if (!fs::is_regular_file(log, failed) || fs::file_size(log, failed) == 0) continue;
    const fs::path aside = unused_name(log);
    fs::rename(log, aside, failed);
    if (failed) throw system_failure("rename", log, failed.value());
    log::info("{} is of an earlier run: it is {} now", log.string(), aside.filename().string());
  }
}

// Of all runs of this file the newest one of this configuration; else one of it that was ended before its first
// checkpoint.
void RunDirectory::choose_newest() {
  make_run_directory(usual_.parent_path());
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
    try {
      if (!of_this_run(newest->path, why_not)) {
        others = fmt::format(" ({}: {})", folder.string(), why_not);
        continue;
      }
    } catch (const Error& error) {
      if (begun_by_this_run(folder)) throw;
      log::warn("{}; {} is left alone, since it is not known to be of this configuration", error.what(),
                folder.string());
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
    // The run that had the lock may have saved since.
    if (const auto newest = newest_in(*without)) return go_on_from(newest->path);
  } else {
    begin_anew();
  }
  log::info("there is no checkpoint of this configuration in {}*{}: the run begins in {}", usual_.string(), others,
            path().string());
}

void RunDirectory::begin_anew() {
  make_run_directory(usual_.parent_path());
  std::error_code failed;
  for (int number = 1; number < kMostRuns; ++number) {
    const fs::path folder = numbered(number);
    // Of two runs that begin at the same time one makes it.
    if (fs::create_directory(folder, failed)) {
      made_ = true;
      folder_ = std::make_unique<CheckpointFolder>(folder);
      return;
    }
    // A name that something else has is taken too.
    if (failed && failed != std::errc::file_exists) throw system_failure("create directory", folder, failed.value());
  }
  throw user_error("there are {} runs beside {}", kMostRuns, usual_.string());
}

}  // namespace sluice::cli
