#include "train/progress.h"

#include <fmt/core.h>

#include <chrono>
#include <csignal>

#include "base/log.h"
#include "base/text.h"

namespace sluice {

std::string format(const ProgressReport& r) {
  const std::string mtp = r.mtp_loss ? fmt::format(" (mtp {:.3f})", *r.mtp_loss) : "";
  const std::string roofline = format_share(r.roofline, 0, "");
  return fmt::format("step {}/{}  loss {:.3f}{}  {} tok/s  MFU {}  {}  ETA {}", r.step, r.steps, r.loss, mtp,
                     format_count(static_cast<int64_t>(r.tokens_per_s)), format_share(r.mfu, 1, "above peak"),
                     roofline.empty() ? "cache-served" : roofline + " of roofline", format_clock(r.eta_seconds));
}

// fmt::print throws where a stream takes nothing (a full disk, a closed one); a run does not end for that.
void Progress::put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), out_);
  std::fflush(out_);
}

void Progress::draw(const std::string& line) {
  // A line that went on below could not be written over.
  line_ = clipped(line, width_ - 1);
  put(fmt::format("\r{}\033[K", line_));
  if (out_ == stderr) log::set_line_shown(true);
}

void Progress::erase() {
  if (line_.empty()) return;
  if (out_ == stderr) log::set_line_shown(false);
  line_.clear();
  put("\r\033[K");
}

void Progress::show(const ProgressReport& report) {
  end_wait();
  const std::string line = printable_line((label_.empty() ? "" : label_ + " ") + format(report));
  if (live()) {
    draw(line);
  } else {
    put(line + "\n");
  }
}

void Progress::wait_for(const std::string& what) {
  const std::lock_guard lock(mutex_);
  what_ = printable_line((label_.empty() ? "" : label_ + " ") + what);
  if (ticker_.joinable()) return;
  waited_.restart();
  timer_ = {};
  ticker_ = std::jthread([this](const std::stop_token& ended) { tick(ended); });
}

void Progress::tick(const std::stop_token& ended) {
  // Signals are for threads that know what to do.
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  // What takes a moment flashes no line.
  constexpr std::chrono::milliseconds moment{300};
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, ended, moment, [&] { return ended.stop_requested(); })) {
    const std::string line = fmt::format("{}  {}", what_, format_clock(waited_.seconds()));
    if (live()) {
      if (line != line_) draw(line);
    } else if (timer_.due()) {
      put(line + "\n");
    }
  }
}

void Progress::end_wait() {
  if (!ticker_.joinable()) return;
  ticker_.request_stop();
  ticker_.join();
}

void Progress::note(const std::string& text) {
  const std::lock_guard lock(mutex_);
  const std::string shown = printable(text);
  put(line_.empty() ? shown + "\n" : fmt::format("\r\033[K{}\n{}", shown, line_));
}

void Progress::finish() {
  end_wait();
  erase();
}

}  // namespace sluice
