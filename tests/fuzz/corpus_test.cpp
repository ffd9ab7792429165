// Every input kept in tests/fuzz/corpus, seeds and those that were once read wrongly, in the ordinary builds.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/file.h"
#include "targets.h"

namespace sluice::fuzz {
namespace {

TEST(FuzzCorpus, IsAcceptedOrRefused) {
  for (const Target& target : targets) {
    int inputs = 0;
    const std::filesystem::path folder = std::filesystem::path(SLUICE_SOURCE_DIR "/tests/fuzz/corpus") / target.name;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      SCOPED_TRACE(entry.path().string());
      const std::string contents = read_file(entry.path(), 1 << 20);
      target.run(std::as_bytes(std::span(contents)));
      ++inputs;
    }
    EXPECT_GE(inputs, 3) << folder;
  }
}

}  // namespace
}  // namespace sluice::fuzz
