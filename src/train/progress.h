// What a person sees while a run goes on: on a terminal one line that is written over, elsewhere a line each time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

namespace sluice {

struct ProgressReport {
  int64_t step = 0;  // steps done
  int64_t steps = 0;
  double loss = 0;
  std::optional<double> mtp_loss = {};  // of the extra layer, where there is one
  double tokens_per_s = 0;              // of all ranks
  double mfu = 0;
  double roofline = 0;  // share of the speed that this step's operations allow at best
  double eta_seconds = 0;
};

// "step 3/7  loss 8.412  2,101 tok/s  MFU 42.9 %  67 % of roofline  ETA 0:09"
std::string format(const ProgressReport& report);

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
  // A line that stays, above the live one.
  void note(const std::string& text);
  // Takes the live line away.
  void finish();

 private:
  std::FILE* out_;
  size_t width_;
  std::string label_;
  std::string line_;  // the live one, while it is shown
};

}  // namespace sluice
