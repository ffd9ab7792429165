// The backends operations are tested on. Each is held to `ref`.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "device/backend.h"

namespace sluice::test {

struct BackendCase {
  std::string name;
  // A fresh backend that keeps alive what it stands on (its pool).
  std::function<std::shared_ptr<Backend>()> make;
  friend std::ostream& operator<<(std::ostream& out, const BackendCase& c) { return out << c.name; }
};

BackendCase ref_backend();
// The fast path on a pool of so many threads.
BackendCase cpu_backend(int threads);
// All of them, `ref` first.
std::vector<BackendCase> backends();

}  // namespace sluice::test
