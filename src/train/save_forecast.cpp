#include "train/save_forecast.h"

#include <algorithm>

namespace sluice {

double blocked_seconds(const SaveSize& size, const SaveRates& rates) {
  const auto bytes = static_cast<double>(size.bytes), room = static_cast<double>(size.staging);
  const double rest = std::max(0.0, bytes - rates.write * size.seconds_left);
  return std::max(std::min(rest, room) / rates.copy, std::max(0.0, rest - room) / rates.write);
}

}  // namespace sluice
