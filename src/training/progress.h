// What a person sees while a run goes on: on a terminal one line that is written over, elsewhere a line each time.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/clock.h"

namespace sluice {

struct ProgressReport {
  int64_t step = 0;  // steps done
  int64_t steps = 0;
  double loss = 0;
  std::optional<double> mtp_loss = {};       // of the extra layer, where there is one
  std::optional<double> learning_rate = {};  // of a training; a benchmark has none
  std::optional<double> gradient_norm = {};  // where it is computed
  double tokens_per_s = 0;     // as the results count them: of a benchmark each rank's, of a training all ranks'
  std::string precision = {};  // "bf16": that the run computes in
  double mfu = 0;
  double roofline = 0;         // share of the speed that this step's operations allow at best
  double elapsed_seconds = 0;  // since this run's first step began
  int64_t own_steps = 0;       // taken since; fewer than are done in a run that was resumed
};

// "step 3/7  loss 8.412  lr 3.0e-4  norm 0.87  2,101 tok/s fp32  MFU 42.9 %  roofline 67 %  0:12, ETA 0:16": the time
// so far, of a training alone, then what the steps to come take at the pace of this run's own. What is longer than
// `columns` is left out part by part, the least important first, so that no number is cut; the steps alone always stay.
// Shares above one are no numbers: "above peak", "cache-served" (see roofline_text).
std::string format(const ProgressReport& report, size_t columns = std::string::npos);

class Progress {
 public:
  // `width`: columns of the terminal that the stream is, 0 when it is none. `label` begins each line and may be empty.
  Progress(std::FILE* out, size_t width, std::string label) : out_(out), width_(width), label_(std::move(label)) {}
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  Progress(Progress&&) = delete;
  Progress& operator=(Progress&&) = delete;

  bool live() const { return width_ > 0; }
  void show(const ProgressReport& report);
  // What goes on until the next show() or finish(), with the time since the first such call: a live line that keeps
  // counting, elsewhere a line when it takes long (see ProgressTimer).
  void wait_for(const std::string& what);
  // A line that stays, above the live one.
  void note(const std::string& text);
  // Takes the live line away.
  void finish();

 private:
  void tick(const std::stop_token& ended);
  void end_wait();
  void put(const std::string& text);
  void draw(const std::string& line);
  void erase();

  std::FILE* out_;
  size_t width_;
  std::string label_;
  std::mutex mutex_;  // of what follows, while there is a ticker
  std::condition_variable_any wake_;
  std::string line_;  // the live one, while it is shown
  std::string what_;  // is waited for
  Stopwatch waited_;
  ProgressTimer timer_;
  std::jthread ticker_;
};

}  // namespace sluice
