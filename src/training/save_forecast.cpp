#include "training/save_forecast.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <future>
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

}  // namespace

std::optional<SaveRates> try_save_rates(const fs::path& folder, uint64_t bytes, std::span<std::byte> room) {
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
  std::optional<SaveRates> rates;
  try {
    rates = SaveRates{.write = write(), .copy = 1};
    auto writing = std::async(std::launch::async, write);
    rates->copy = copy_rate(room);
    writing.get();
  } catch (const std::exception&) {
    rates.reset();
  }
  return rates;
}

SaveRates measured_rates(const SaveRates& before, uint64_t bytes, int ranks, const RankWriter::Work& first) {
  SaveRates rates{.write = rate_of(bytes, first.writing_seconds), .copy = before.copy};
  if (first.copied_bytes >= kTriedBytes) rates.copy = rate_of(first.copied_bytes, first.copying_seconds) * ranks;
  return rates;
}

double blocked_seconds(const SaveSize& size, const SaveRates& rates) {
  const auto bytes = static_cast<double>(size.bytes), room = static_cast<double>(size.staging);
  const double rest = std::max(0.0, bytes - rates.write * size.seconds_left);
  const double copying = size.staging > 0 ? rest / rates.copy : 0;
  return std::max(copying, std::max(0.0, rest - room) / rates.write);
}

}  // namespace sluice
