#include "train/progress.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/text.h"

namespace sluice {

namespace {

// fmt::print throws where a stream takes nothing (a full disk, a closed one); a run does not end for that.
void put(std::FILE* out, const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), out);
}

}  // namespace

std::string format(const ProgressReport& r) {
  const std::string mtp = r.mtp_loss ? fmt::format(" (mtp {:.3f})", *r.mtp_loss) : "";
  return fmt::format("step {}/{}  loss {:.3f}{}  {} tok/s  MFU {:.1f} %  {:.0f} % of roofline  ETA {}", r.step, r.steps,
                     r.loss, mtp, format_count(static_cast<int64_t>(r.tokens_per_s)), 100 * r.mfu, 100 * r.roofline,
                     format_clock(r.eta_seconds));
}

void Progress::show(const ProgressReport& report) {
  std::string line = (label_.empty() ? "" : label_ + " ") + format(report);
  if (live()) {
    // A line that went on below could not be written over.
    line.resize(std::min(line.size(), width_ - 1));
    put(out_, fmt::format("\r{}\033[K", line));
    line_ = line;
  } else {
    put(out_, fmt::format("{}\n", line));
  }
  std::fflush(out_);
}

void Progress::note(const std::string& text) {
  if (line_.empty()) {
    put(out_, fmt::format("{}\n", text));
  } else {
    put(out_, fmt::format("\r\033[K{}\n{}", text, line_));
  }
  std::fflush(out_);
}

void Progress::finish() {
  if (line_.empty()) return;
  put(out_, fmt::format("\r\033[K"));
  std::fflush(out_);
  line_.clear();
}

}  // namespace sluice
