#include "training/progress.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "base/log.h"
#include "base/text.h"
#include "base/thread_signals.h"

namespace sluice {

namespace {

// "3.0e-4": two figures, as short as it can be.
std::string format_power(double value) {
  if (value == 0) return "0";
  std::string text = fmt::format("{:.1e}", value);
  const size_t sign = text.find('e') + 1;
  while (text.size() > sign + 2 && text.at(sign + 1) == '0') text.erase(sign + 1, 1);
  return text;
}

std::string format_norm(double norm) {
  return norm >= 0.01 && norm < 1000 ? fmt::format("{:.2f}", norm) : format_power(norm);
}

struct Part {
  std::string text;    // empty: there is none
  int importance = 0;  // the smaller, the longer it stays
};

}  // namespace

std::string format(const ProgressReport& r, size_t columns) {
  const std::string roofline = format_share(r.roofline, 0, "");
  const double pace = r.elapsed_seconds / static_cast<double>(r.own_steps);
  const double to_go = pace * static_cast<double>(r.steps - r.step);
  const std::array parts{
      Part{fmt::format("step {}/{}", r.step, r.steps), 0},
      Part{fmt::format("loss {:.3f}", r.loss), 1},
      Part{r.mtp_loss ? fmt::format("mtp {:.3f}", *r.mtp_loss) : "", 7},
      Part{r.learning_rate ? "lr " + format_power(*r.learning_rate) : "", 3},
      Part{r.gradient_norm ? "norm " + format_norm(*r.gradient_norm) : "", 4},
      Part{format_count(static_cast<int64_t>(r.tokens_per_s)) + " tok/s" +
               (r.precision.empty() ? "" : " " + r.precision),
           5},
      Part{"MFU " + format_share(r.mfu, 1, "above peak"), 6},
      Part{roofline.empty() ? "cache-served" : "roofline " + roofline, 8},
      Part{(r.learning_rate ? format_clock(r.elapsed_seconds) + ", " : "") + "ETA " + format_clock(to_go), 2},
  };
  std::array<bool, parts.size()> shown{};
  size_t used = 0;
  for (int importance = 0; importance < std::ssize(parts); ++importance) {
    const size_t i = std::ranges::find(parts, importance, &Part::importance) - parts.begin();
    if (parts.at(i).text.empty()) continue;
    const size_t more = parts.at(i).text.size() + (used == 0 ? 0 : 2);
    shown.at(i) = importance == 0 || used + more <= columns;
    if (shown.at(i)) used += more;
  }
  std::string line;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (shown.at(i)) line += (line.empty() ? "" : "  ") + parts.at(i).text;
  }
  return line;
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
  const std::string label = printable_line(label_.empty() ? "" : label_ + " ");
  if (live()) {
    draw(label + format(report, width_ - 1 - std::min(width_ - 1, columns_of(label))));
  } else {
    put(label + format(report) + "\n");
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
  block_signals();
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
