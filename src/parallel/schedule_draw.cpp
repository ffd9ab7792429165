#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "parallel/schedule.h"

namespace sluice {
namespace {

// "F0.3", or "F3" where there is only one chunk.
std::string label(const Action& action, int chunks) {
  std::string text = action.str();
  if (chunks == 1) text.erase(text.find('0'), 2);
  return text;
}

char letter(ActionKind kind) {
  return kind == ActionKind::forward ? 'F' : kind == ActionKind::weight ? 'W' : 'B';
}

// The columns [first, last) of a span.
struct Columns {
  int first;
  int last;
};
Columns columns(const Timeline::Span& span, double per_time) {
  return {static_cast<int>(std::lround(span.begin * per_time)), static_cast<int>(std::lround(span.end * per_time))};
}

// Columns per time at which every label is followed by a space.
double roomy(const Timeline& timeline, int chunks) {
  double per_time = 0;
  for (const auto& spans : timeline.ranks) {
    for (const Timeline::Span& span : spans) {
      const double time = span.end - span.begin;
      if (time > 0) per_time = std::max(per_time, static_cast<double>(label(span.action, chunks).size() + 1) / time);
    }
  }
  return per_time;
}

bool labels_fit(const Timeline& timeline, int chunks, double per_time) {
  for (const auto& spans : timeline.ranks) {
    for (const Timeline::Span& span : spans) {
      const Columns at = columns(span, per_time);
      const bool drawn = span.end > span.begin;
      if (drawn && static_cast<std::size_t>(at.last - at.first) < label(span.action, chunks).size()) return false;
    }
  }
  return true;
}

}  // namespace

std::string draw(const Schedule& schedule, const ActionTimes& times, int width) {
  const Timeline timeline = simulate(schedule, times);
  const std::size_t margin = std::to_string(schedule.stages - 1).size();
  const int room = std::max(1, width - static_cast<int>(margin) - 1);
  if (!(timeline.end > 0)) return "";

  double per_time = std::min(roomy(timeline, schedule.chunks), room / timeline.end);
  // Whole columns keep equal times equally wide.
  if (per_time >= 1) per_time = std::floor(per_time);
  const bool labelled = labels_fit(timeline, schedule.chunks, per_time);

  std::string text;
  for (std::size_t rank = 0; rank < timeline.ranks.size(); ++rank) {
    std::string line(static_cast<std::size_t>(std::lround(timeline.end * per_time)), '.');
    for (const Timeline::Span& span : timeline.ranks[rank]) {
      const Columns at = columns(span, per_time);
      const auto first = static_cast<std::size_t>(at.first), size = static_cast<std::size_t>(at.last - at.first);
      if (size == 0) continue;
      if (!labelled) {
        line.replace(first, size, size, letter(span.action.kind));
        continue;
      }
      std::string name = label(span.action, schedule.chunks);
      if (name.size() < size) name += std::string(size - name.size() - 1, '-') + ' ';
      line.replace(first, size, name);
    }
    text += fmt::format("{:>{}} {}\n", rank, margin, line.substr(0, line.find_last_not_of(' ') + 1));
  }
  return text;
}

}  // namespace sluice
