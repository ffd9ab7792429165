#include "training/saver.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <system_error>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/text.h"
#include "base/thread_signals.h"
#include "checkpoint/rank_file.h"
#include "checkpoint/rank_parts.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// Copies to the host; a rank whose memory is the host's needs none.
std::function<void(const Tensor&, std::byte*)> copier(Trainer& trainer) {
  if (trainer.host_visible()) return {};
  return [&ctx = trainer.context()](const Tensor& from, std::byte* to) { copy_to_host(ctx, from, to); };
}

// A rank's share of the threads: all save at the same time.
int copiers(Trainer& trainer) {
  return std::max(1, trainer.context().backend().target().workers / trainer.mesh().world.size());
}

// An error, with its advice.
std::string in_one_line(const std::exception& failure) {
  const auto* const error = dynamic_cast<const Error*>(&failure);
  const bool advised = error != nullptr && !error->hint().empty();
  return advised ? fmt::format("{} ({})", failure.what(), error->hint()) : failure.what();
}

}  // namespace

struct Saver::Save {
  RunState state;
  fs::path place;  // where its files are until it is complete
  bool final = false;
  std::unique_ptr<StagedDirectory> staged;  // on the first rank
  std::unique_ptr<RankWriter> writer;
  std::string failure;  // of this rank
  Stopwatch watch;
  double blocked = 0;
  std::optional<double> forecast;
  bool released = false;
  bool told = false;                    // this rank's hashes are written
  bool all_written = false;             // by all ranks: the first one puts the files together
  double seconds = 0;                   // until it had its name; on the first rank
  std::future<std::string> publishing;  // on the first rank; what failed, or nothing
};

Saver::Saver(Trainer& trainer, SaveOptions options)
    : trainer_(trainer), options_(std::move(options)), first_(trainer.mesh().world.world_rank() == 0) {
  const uint64_t bytes = all_bytes();
  if (first_) speed_ = try_save_speed(options_.path(), bytes, trainer_.staging());
}

// The writer's thread ends before the memory it reads.
Saver::~Saver() = default;

uint64_t Saver::all_bytes() {
  if (!all_bytes_) {
    const auto mine = static_cast<int64_t>(RankFile(kept_slices(trainer_.state())).bytes());
    all_bytes_ = static_cast<uint64_t>(trainer_.sum_over_world(mine, "bytes of a checkpoint"));
  }
  return *all_bytes_;
}

// On the first rank, before the others write.
void Saver::open(const RunState& state) {
  const fs::path target = options_.of_step(state.step);
  std::error_code failed;
  if (fs::exists(target, failed)) {
    throw user_error("{} is there already, and a checkpoint is never written over", target.string());
  }
  // Manifest, configuration and what hubs have beside weights.
  constexpr uint64_t kBeside = 1 << 20;
  const uint64_t more = options_.complete_bytes ? options_.complete_bytes(state.step) : 0;
  options_.folder->make_room(state.step, *all_bytes_ + kBeside + more, options_.retention);
  save_->staged = std::make_unique<StagedDirectory>(target, /*replace=*/false);
  save_->staged->begin();
}

void Saver::begin(const RunState& state, double seconds_left, bool final) {
  finish();
  const Stopwatch watch;
  const uint64_t bytes = all_bytes();
  save_ = std::make_unique<Save>();
  save_->state = state;
  save_->place = StagedDirectory::place_of(options_.of_step(state.step));
  save_->final = final;
  const auto attempt = [&](auto&& action) {
    try {
      if (save_->failure.empty()) action();
    } catch (const std::exception& error) {
      save_->failure = in_one_line(error);
    }
  };
  if (first_) attempt([&] { open(state); });
  if (trainer_.sum_over_world(save_->failure.empty() ? 0 : 1, "whether a save can begin") > 0) {
    return give_up(std::move(save_->failure));
  }
  attempt([&] {
    save_->writer = std::make_unique<RankWriter>(
        kept_slices(trainer_.state()), save_->place / rank_file_name(trainer_.mesh().world.world_rank()),
        RankWriter::Options{.staging = trainer_.staging(), .copy = copier(trainer_), .copiers = copiers(trainer_)});
  });
  // A last save is waited for, whatever it takes.
  if (speed_ && options_.in_background && !final) {
    const auto staging =
        static_cast<uint64_t>(trainer_.staging().size()) * static_cast<uint64_t>(trainer_.mesh().world.size());
    save_->forecast = blocked_seconds({.bytes = bytes, .staging = staging, .seconds_left = seconds_left}, *speed_);
  }
  // What cannot be read by another thread is copied now.
  if (!trainer_.host_visible()) release();
  save_->blocked += watch.seconds();
  if (!options_.in_background) finish();
}

void Saver::release() {
  if (!save_ || save_->released) return;
  const Stopwatch watch;
  if (save_->writer) save_->writer->release();
  save_->released = true;
  save_->blocked += watch.seconds();
}

Saver::Votes Saver::votes() const {
  if (!save_) return {};
  if (save_->all_written) {
    // The others wait for the first rank.
    if (!first_) return {.ended = 1};
    if (save_->publishing.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return {};
    if (save_->failure.empty()) save_->failure = save_->publishing.get();
    return {.ended = 1, .failed = save_->failure.empty() ? 0 : 1};
  }
  if (!save_->writer) return {.ended = 1, .failed = 1};
  if (!save_->writer->ended()) return {};
  try {
    const HashedFile file = save_->writer->finish();
    // The first rank reads it when all have ended.
    if (!save_->told) leave_part(save_->place, file);
    save_->told = true;
  } catch (const std::exception& error) {
    save_->failure = in_one_line(error);
  }
  return {.ended = 1, .failed = save_->failure.empty() ? 0 : 1};
}

void Saver::settle(const Votes& sums) {
  if (!save_) return;
  if (sums.failed > 0) return give_up(std::move(save_->failure));
  if (sums.ended < trainer_.mesh().world.size()) return;
  if (save_->all_written) return report();
  save_->all_written = true;
  if (!first_) return;
  save_->publishing = std::async(std::launch::async, [this]() -> std::string {
    block_signals();
    try {
      put_together();
      return {};
    } catch (const std::exception& error) {
      return in_one_line(error);
    }
  });
}

void Saver::finish() {
  if (!save_) return;
  const Stopwatch watch;
  if (save_->writer) {
    save_->writer->release();
    save_->writer->wait();
  }
  save_->released = true;
  save_->blocked += watch.seconds();
  // Writing, and putting it together.
  while (save_) {
    const Stopwatch phase;
    if (save_->publishing.valid()) save_->publishing.wait();
    const Votes mine = votes();
    const auto [ended, failed] = trainer_.sum_over_world(std::array{mine.ended, mine.failed}, "the end of a save");
    save_->blocked += phase.seconds();
    settle({.ended = ended, .failed = failed});
  }
}

void Saver::put_together() {
  const fs::path directory = save_->staged->path();
  Manifest manifest = options_.manifest;
  manifest.run = save_->state;
  manifest.files = collect_parts(directory, trainer_.mesh().world.size());
  if (options_.beside) options_.beside(directory);
  write_file_atomic(directory / kManifestFile, manifest_text(manifest));
  if (options_.complete) options_.complete(directory, save_->state.step);
  save_->staged->commit();
  save_->seconds = save_->watch.seconds();
  const RunState& state = save_->state;
  // It is complete, whatever happens here; a run that goes on from it sets its links right.
  try {
    options_.folder->link(state.step, state.best && state.best->step == state.step);
    options_.folder->clean(options_.retention);
  } catch (const std::exception& error) {
    log::warn("step {} is saved, but {}", state.step, in_one_line(error));
  }
}

void Saver::report() {
  last_step_ = save_->state.step;
  if (speed_) speed_ = measured_speed(*speed_, trainer_.mesh().world.size(), save_->writer->work());
  if (first_ && options_.saved) {
    options_.saved({.step = save_->state.step,
                    .path = options_.of_step(save_->state.step),
                    .bytes = *all_bytes_,
                    .seconds = save_->seconds,
                    .blocked = save_->blocked,
                    .forecast_blocked = save_->forecast});
  }
  save_.reset();
}

void Saver::give_up(std::string reason) {
  const int64_t step = save_->state.step;
  const bool final = save_->final;
  save_->writer.reset();
  if (save_->publishing.valid()) save_->publishing.wait();
  // Nobody writes any more when the directory goes.
  trainer_.mesh().world.barrier(trainer_.context().compute(), "the end of a save that failed");
  save_.reset();
  if (final || !options_.go_on) {
    unsaved_ = reason.empty() ? reason : fmt::format("step {} is not saved: {}", step, reason);
    if (!final) require_saved();
    return;
  }
  if (reason.empty()) return;  // another rank says why
  const std::optional<int64_t> last = last_step_ ? last_step_ : options_.resumed;
  log::warn("step {} is not saved: {}; the run goes on, {}", step, reason,
            last ? fmt::format("the last good checkpoint is {}", options_.of_step(*last).string())
                 : "no checkpoint of this run is complete yet");
}

void Saver::require_saved() {
  if (!unsaved_) return;
  if (!unsaved_->empty()) throw runtime_failure("{}", *unsaved_);
  // The rank that knows why ends this one, which waits for that.
  trainer_.mesh().world.barrier(trainer_.context().compute(), "a save that failed");
  throw runtime_failure("a save has failed on another rank");
}

}  // namespace sluice
