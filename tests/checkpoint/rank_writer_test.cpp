// A rank's file is written while the rank goes on; it holds what was there when the save began.
#include "checkpoint/rank_writer.h"

#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <optional>

#include "saved.h"
#include "support.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::expect_user_error;
using test::SavedState;

constexpr size_t kBlock = 1 << 20;

struct RankWriterTest : test::InDirectory {
  // Five blocks and a half.
  std::deque<SavedState> states() const {
    std::deque<SavedState> large;
    large.emplace_back("a", Shape{700, 1000}, StateKind::value, DType::f32, 1);
    large.emplace_back("a", Shape{700, 1000}, StateKind::moment1, DType::f32, 2);
    return large;
  }
  static test::Slices whole(const std::deque<SavedState>& states) { return test::cut(states, 1, 1).front(); }
  const fs::path file = directory_ / rank_file_name(0);
};

TEST(RankFile, BlocksMakeUpTheFile) {
  const std::deque<SavedState> states = test::saved_states();
  for (const test::Slices& slices : test::cut(states, 3, 4)) {
    const RankFile file(slices);
    std::string text;
    for (size_t block = 0; block < file.blocks(); ++block) {
      const size_t before = text.size();
      for (const RankFile::Part& part : file.parts(block)) {
        const auto* const bytes = part.values ? static_cast<const char*>(part.values.raw())
                                              : reinterpret_cast<const char*>(part.header.data());
        text.append(bytes, part.bytes());
      }
      EXPECT_EQ(text.size() - before, file.bytes_of_block(block));
    }
    EXPECT_EQ(text.size(), file.bytes());
    const safetensors::Header header = safetensors::parse_header(test::bytes_of(text), "test");
    ASSERT_EQ(header.entries.size(), slices.size());
    for (const StateSlice& slice : slices) {
      const auto entry = std::ranges::find(header.entries, slice_name(slice.kind, slice.param->name),
                                           [](const safetensors::Entry& each) { return each.spec.name; });
      ASSERT_NE(entry, header.entries.end());
      EXPECT_EQ(std::memcmp(text.data() + entry->begin, slice.values.raw(), slice.values.bytes()), 0);
      const SlicePlace place = parse_slice_place(header.metadata.at(slice.param->name), "test");
      EXPECT_EQ(place.first, slice.first);
      EXPECT_EQ(std::ssize(place.shape), slice.param->shape.rank());
    }
  }
}

TEST(RankFile, HasAtMost4096Blocks) {
  EXPECT_EQ(block_bytes_of(1), kBlock);
  EXPECT_EQ(block_bytes_of(4096 * kBlock), kBlock);
  EXPECT_EQ(block_bytes_of(4096 * kBlock + 1), 2 * kBlock);
  for (uint64_t bytes = 1; bytes < uint64_t{1} << 50; bytes *= 3) {
    EXPECT_LE((bytes + block_bytes_of(bytes) - 1) / block_bytes_of(bytes), 4096U);
  }
}

// With room for nothing, for a block, for half and for all; from memory in place, copied by one thread or by several,
// and by way of copies.
TEST_F(RankWriterTest, WhatChangesAfterReleaseIsNotInTheFile) {
  for (const auto& [copies, copiers] : {std::pair{false, 1}, {false, 3}, {true, 1}}) {
    for (const size_t blocks : {0, 1, 3, 8}) {
      if (copies && blocks == 0) continue;
      std::deque<SavedState> live = states();
      const std::deque<SavedState> before = states();
      std::vector<std::byte> staging(blocks * kBlock);
      RankWriter::Options options{.staging = staging, .copiers = copiers};
      if (copies) {
        options.copy = [](const Tensor& from, std::byte* to) { std::memcpy(to, from.raw(), from.bytes()); };
      }
      const fs::path directory = directory_ / fmt::format("{}-{}-{}", copies, copiers, blocks);
      fs::create_directories(directory);
      RankWriter writer(whole(live), directory / rank_file_name(0), options);
      writer.release();
      for (const SavedState& state : live) test::poison(state.values);
      const HashedFile hashed = writer.finish();
      EXPECT_TRUE(writer.ended());
      EXPECT_EQ(hashed, test::hashed(rank_file_name(0), read_file(directory / rank_file_name(0), 1 << 25)));
      test::write_manifest(directory, {hashed});
      const Checkpoint checkpoint(directory);
      for (const SavedState& state : before) EXPECT_EQ(test::read_back(checkpoint, state), state.values.values());
    }
  }
}

TEST_F(RankWriterTest, WithoutReleaseItIsWrittenFromWhereItIs) {
  const std::deque<SavedState> live = states();
  RankWriter writer(whole(live), file, {});
  const HashedFile hashed = writer.finish();
  EXPECT_EQ(hashed, test::hashed(file.filename(), read_file(file, 1 << 25)));
}

TEST_F(RankWriterTest, NothingIsReplaced) {
  write(rank_file_name(0), "mine");
  const std::deque<SavedState> live = states();
  EXPECT_NE(std::string(error_of([&] { RankWriter writer(whole(live), file, {}); }).what()).find("exists"),
            std::string::npos);
  EXPECT_EQ(read_file(file, 100), "mine");
}

TEST_F(RankWriterTest, OneThatIsAbandonedEnds) {
  const std::deque<SavedState> live = states();
  std::vector<std::byte> staging(kBlock);
  {
    RankWriter waiting(whole(live), file, {.staging = staging, .copy = [](const Tensor&, std::byte*) {
                                             FAIL() << "nothing was asked for";
                                           }});
    EXPECT_FALSE(waiting.ended());
  }
  {
    const RankWriter under_way(whole(live), directory_ / "other", {});
  }
  // Neither has a manifest.
  expect_user_error(error_of([&] { const Checkpoint none(directory_); }), {"it has no manifest.json"});
}

// Files of this process may have no more than so many bytes while it lives: writing fails as on a full disk.
class FileLimit {
 public:
  explicit FileLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileLimit(const FileLimit&) = delete;
  FileLimit& operator=(const FileLimit&) = delete;
  FileLimit(FileLimit&&) = delete;
  FileLimit& operator=(FileLimit&&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(RankWriterTest, NoRoomShowsAtTheStart) {
  const std::deque<SavedState> live = states();
  const FileLimit limit(2 * kBlock);
  const Error error = error_of([&] { RankWriter writer(whole(live), file, {}); });
  EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
}

TEST_F(RankWriterTest, AFailureInTheMiddleSurfaces) {
  const std::deque<SavedState> live = states();
  std::vector<std::byte> staging(kBlock);
  std::optional<FileLimit> limit;
  RankWriter writer(whole(live), file, {.staging = staging, .copy = [&](const Tensor& from, std::byte* to) {
                                          if (!limit) limit.emplace(2 * kBlock);
                                          std::memcpy(to, from.raw(), from.bytes());
                                        }});
  // Returns though there will never be room for the rest.
  writer.release();
  const Error error = error_of([&] { writer.finish(); });
  EXPECT_NE(std::string(error.what()).find("cannot write " + file.string()), std::string::npos) << error.what();
  EXPECT_TRUE(writer.ended());
}

}  // namespace
}  // namespace sluice
