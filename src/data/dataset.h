// Where tokens come from: numbered samples, each a pure function of its id, so that any rank can make any sample and a
// run resumes from its step number alone. Samples may be read from several threads at once.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace sluice {

class Dataset {
 public:
  Dataset() = default;
  virtual ~Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  // Writes sample `id` >= 0: the inputs are all tokens but the last, the labels all but the first. Ids do not end:
  // id / size() is the epoch.
  virtual void sample(std::int64_t id, std::span<std::int32_t> tokens) const = 0;
  // Different samples, at least 1.
  virtual std::int64_t size() const = 0;
  // Every token is below it.
  virtual std::int64_t vocab_size() const = 0;
  // A short text that is another one where the samples are other ones, as far as the configuration does not say so.
  virtual std::string identity() const = 0;
};

}  // namespace sluice
