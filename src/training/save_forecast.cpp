#include "training/save_forecast.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <future>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/log.h"

namespace sluice {

namespace fs = std::filesystem;

namespace {

constexpr size_t kTriedBytes = size_t{32} << 20;  // some 20 ms

double rate_of(size_t bytes, double seconds) {
  return static_cast<double>(bytes) / std::max(seconds, 1e-9);
}

double copy_rate(std::span<std::byte> room) {
  const size_t half = std::min(kTriedBytes, room.size() / 2);
  double best = 1;
  for (int i = 0; half > 0 && i < 2; ++i) {  // the first touches the memory
    const Stopwatch watch;
    std::memcpy(room.data(), room.data() + half, half);
    best = std::max(best, rate_of(half, watch.seconds()));
  }
  return best;
}

// The part of a save that is written after so many seconds, between 0 and 1: evenly from one moment to the next.
double share_at(const std::vector<double>& moments, double seconds) {
  const auto next = std::ranges::upper_bound(moments, seconds);
  if (next == moments.end()) return 1;
  const double before = next == moments.begin() ? 0 : *std::prev(next);
  const auto parts = static_cast<double>(next - moments.begin());
  return (parts + (seconds - before) / (*next - before)) / static_cast<double>(moments.size());
}

// The other way round: the seconds after which so much of it is.
double time_of(const std::vector<double>& moments, double share) {
  const double parts = std::clamp(share, 0.0, 1.0) * static_cast<double>(moments.size());
  const auto whole = std::min(static_cast<size_t>(parts), moments.size() - 1);
  const double before = whole == 0 ? 0 : moments[whole - 1];
  return before + (parts - static_cast<double>(whole)) * (moments[whole] - before);
}

}  // namespace

std::optional<SaveSpeed> try_save_speed(const fs::path& folder, uint64_t bytes, std::span<std::byte> room) {
  const fs::path path = folder / ".speed.sluice-unfinished";
  const size_t tried = std::min<uint64_t>(bytes, kTriedBytes);
  const auto write = [&] {
    constexpr size_t kPiece = size_t{1} << 20;
    const std::string piece(kPiece, '\0');
    const Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC, "write", 0600);
    // From here on it has no name: whatever ends the program, nothing is left.
    std::error_code failed;
    if (!fs::remove(path, failed) && failed) {
      log::warn("{}, a file to try the disk's speed, is left over: it cannot be removed: {}", path.string(),
                failed.message());
    }
    const Stopwatch watch;
    for (size_t done = 0; done < tried; done += kPiece) {
      write_all(file, std::string_view(piece).substr(0, tried - done), path);
    }
    return rate_of(tried, watch.seconds());
  };
  std::optional<SaveSpeed> speed;
  try {
    speed = SaveSpeed{.written_at = {static_cast<double>(bytes) / write()}, .copy = 1};
    auto writing = std::async(std::launch::async, write);
    speed->copy = copy_rate(room);
    writing.get();
  } catch (const std::exception&) {
    speed.reset();
  }
  return speed;
}

SaveSpeed measured_speed(const SaveSpeed& before, int ranks, const RankWriter::Work& first) {
  SaveSpeed speed{.written_at = first.written_at, .copy = before.copy};
  if (first.copied_bytes >= kTriedBytes) speed.copy = rate_of(first.copied_bytes, first.copying_seconds) * ranks;
  return speed;
}

double blocked_seconds(const SaveSize& size, const SaveSpeed& speed) {
  const auto bytes = static_cast<double>(size.bytes), room = static_cast<double>(size.staging);
  const double rest = bytes * (1 - share_at(speed.written_at, size.seconds_left));
  const double copying = size.staging > 0 ? rest / speed.copy : 0;
  const double writing = time_of(speed.written_at, (bytes - room) / std::max(bytes, 1.0)) - size.seconds_left;
  return std::max({0.0, copying, writing});
}

}  // namespace sluice
