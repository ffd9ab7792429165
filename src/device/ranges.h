// Ranges: names of nested stretches of a rank's work, as a profiler shows them: step > micro-batch > phase > operation.
// Where no profiler listens a scope is one test of a pointer, and its name is not made.
#pragma once

#include <concepts>
#include <string_view>
#include <utility>

namespace sluice {

class Ranges {
 public:
  Ranges() = default;
  Ranges(const Ranges&) = delete;
  Ranges& operator=(const Ranges&) = delete;
  virtual ~Ranges() = default;
  // On the calling thread; close() ends the range that was opened last there.
  virtual void open(std::string_view name) = 0;
  virtual void close() = 0;
};

// A range as long as this lives, also when an exception ends it; none if `ranges` is null.
class RangeScope {
 public:
  RangeScope(Ranges* ranges, std::string_view name) : ranges_(ranges) {
    if (ranges_ != nullptr) ranges_->open(name);
  }
  // `name()` is called only if somebody listens.
  template <std::invocable Name>
  RangeScope(Ranges* ranges, Name&& name) : ranges_(ranges) {
    if (ranges_ != nullptr) ranges_->open(std::forward<Name>(name)());
  }
  ~RangeScope() {
    if (ranges_ != nullptr) ranges_->close();
  }
  RangeScope(const RangeScope&) = delete;
  RangeScope& operator=(const RangeScope&) = delete;
  RangeScope(RangeScope&&) = delete;
  RangeScope& operator=(RangeScope&&) = delete;

 private:
  Ranges* ranges_;
};

}  // namespace sluice
