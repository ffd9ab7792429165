#include "comm/mpi/calls.h"

#include <algorithm>
#include <array>
#include <thread>

#include "base/error.h"

namespace sluice::mpi {

std::string text_of(int code) {
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS) return fmt::format("error {} of MPI", code);
  return {text.data(), static_cast<size_t>(length)};
}

void check(int code, const char* what) {
  if (code != MPI_SUCCESS) throw runtime_failure("{} failed: {}", what, text_of(code));
}

bool comes(const std::function<bool()>& look, std::chrono::milliseconds limit) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::microseconds kFirst{20}, kLongest{1000};
  const Clock::time_point begin = Clock::now();
  for (std::chrono::microseconds pause = kFirst; !look(); pause = std::min(2 * pause, kLongest)) {
    if (Clock::now() - begin >= limit) return false;
    std::this_thread::sleep_for(pause);
  }
  return true;
}

}  // namespace sluice::mpi
