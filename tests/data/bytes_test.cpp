#include "data/bytes.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/batch.h"
#include "data/text_files.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;

// A directory of its own for each test, removed at the end.
class Text : public testing::Test {
 protected:
  Text() { fs::create_directories(directory_); }
  ~Text() override { fs::remove_all(directory_); }

  void write(const std::string& name, const std::string& contents) const {
    fs::create_directories((directory_ / name).parent_path());
    std::ofstream(directory_ / name, std::ios::binary) << contents;
  }
  std::string load(const std::string& name = "") const {
    return load_text(name.empty() ? directory_ : directory_ / name)->bytes;
  }

  const fs::path directory_ =
      fs::temp_directory_path() /
      ("sluice-text-" + std::to_string(::getpid()) + testing::UnitTest::GetInstance()->current_test_info()->name());
};

Error error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::user);
    return error;
  }
  ADD_FAILURE() << "no error";
  return user_error("none");
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::shared_ptr<const ByteText> text_of(std::string bytes) {
  return std::make_shared<const ByteText>(ByteText{.name = "text", .bytes = std::move(bytes), .files = 1});
}

// Byte i has the value i: a block shows where it was cut.
std::shared_ptr<const ByteText> counting(int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) bytes += static_cast<char>(i);
  return text_of(bytes);
}

std::vector<std::int32_t> tokens_of(const Dataset& dataset, std::int64_t id, std::int64_t seq_len) {
  std::vector<std::int32_t> tokens(seq_len + 1, -1);
  dataset.sample(id, tokens);
  return tokens;
}

TEST_F(Text, ReadsFilesInTheOrderOfTheirNames) {
  write("b.txt", "bee");
  write("a.txt", "a");
  write("c/2", "two");
  write("c/1", "one");
  write("empty", "");
  EXPECT_EQ(load(), "a\0bee\0one\0two\0"s);
  EXPECT_EQ(load_text(directory_)->files, 5);
  EXPECT_EQ(load("b.txt"), "bee");
  EXPECT_EQ(load("?.txt"), "a\0bee"s);
  EXPECT_EQ(load("c/*"), "one\0two"s);
}

// A file whose name looks like a pattern is a file.
TEST_F(Text, NamesBeforePatterns) {
  write("[ab]", "brackets");
  write("a", "a");
  EXPECT_EQ(load("[ab]"), "brackets");
}

TEST_F(Text, FollowsLinksOnce) {
  write("data/a", "a");
  write("other/b", "b");
  fs::create_symlink("a", directory_ / "data/alias");                       // read already
  fs::create_directory_symlink("../other", directory_ / "data/elsewhere");  // followed
  fs::create_directory_symlink("..", directory_ / "data/up");               // a circle
  fs::create_symlink("nowhere", directory_ / "data/dangling");
  fs::create_symlink("loop", directory_ / "data/loop");
  ASSERT_EQ(::mkfifo((directory_ / "data/pipe").c_str(), 0600), 0);
  EXPECT_EQ(load("data"), "a\0b"s);
  EXPECT_EQ(load("data/alias"), "a");
  EXPECT_EQ(load("data/elsewhere"), "b");
}

TEST_F(Text, ErrorsNameThePath) {
  EXPECT_TRUE(contains(error_of([&] { load("nothing"); }).what(), "nothing does not exist"));
  EXPECT_TRUE(contains(error_of([&] { load("*.txt"); }).what(), "*.txt does not exist"));
  EXPECT_TRUE(contains(error_of([] { load_text("~/notes"); }).hint(), "write $HOME"));
  EXPECT_TRUE(contains(error_of([&] { load(); }).what(), "no files in " + directory_.string()));
  ASSERT_EQ(::mkfifo((directory_ / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(contains(error_of([&] { load("pipe"); }).what(), "pipe is neither a file nor a directory"));
  fs::create_symlink("loop", directory_ / "loop");
  EXPECT_TRUE(contains(error_of([&] { load("loop"); }).what(), "cannot read"));
  EXPECT_TRUE(contains(error_of([&] { load(std::string(300, 'x')); }).what(), "cannot read"));
}

// As git's packs, nanoGPT's and Megatron's shards begin, and text in the encodings there are.
TEST_F(Text, WhatIsNoTextIsLeftOutAndNamed) {
  std::string tokens, random;
  for (int i = 0; i < 3000; ++i) tokens += {static_cast<char>(i * 37), static_cast<char>(i * 11 % 197)};
  for (uint32_t i = 0; i < 3000; ++i) random += static_cast<char>((i * i * 7919 + i * 104729) >> 5);
  write("a.txt", "text");
  write("latin1.txt", "na\xefve caf\xe9");
  write("utf8", "\xef\xbb\xbf\xe6\x97\xa5\xe6\x9c\xac");
  write("page.html", "<html>page</html>");
  const std::string text = load();
  EXPECT_EQ(load_text(directory_)->files, 4);
  EXPECT_EQ(describe(*load_text(directory_)), directory_.string() + ": 4 files, 43 B of text");

  write(".git/objects/pack/pack-1.pack", "PACK\0\0\0\2"s + random);
  write(".gitignore", "*.o");
  write("b.png", "\x89PNG\r\n\x1a\n");
  write("c.gz", "\x1f\x8b\x08" + random);
  write("d/train.bin", tokens);
  write("d/val.idx", "MMIDIDX\0\0\1\0\0\0"s);
  write("e.parquet", "PAR1\x15\0\x15\x02"s + random);
  write("f.npy", "\x93NUMPY\1\0"s);
  write("g", "\xff\xfe\x61\0\x62\0"s);
  write("h", random);
  write("pointer.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n");
  EXPECT_EQ(load(), text);
  const std::shared_ptr<const ByteText> found = load_text(directory_);
  EXPECT_EQ(describe(*found),
            directory_.string() +
                ": 4 files, 43 B of text; left out: 2 hidden (.git, .gitignore), 9 not text (b.png: a "
                "PNG image, c.gz: a gzip archive, d/train.bin: binary data and 6 more)");
  EXPECT_EQ(load_text(directory_ / "*")->not_text.count, 9);
  EXPECT_EQ(load_text(directory_ / "*")->hidden.count, 0);
  EXPECT_EQ(load(".gi*re"), "*.o");
  EXPECT_EQ(load(".gitignore"), "*.o");
}

TEST_F(Text, WhatWasLeftOutIsToldWhereTheRestIsTooLittle) {
  write("a.txt", "abc");
  write("b.png", "\x89PNG\r\n\x1a\n");
  const Error error = error_of([&] { ByteDataset(load_text(directory_), {.seq_len = 8}); });
  EXPECT_TRUE(contains(error.hint(), "smaller seq_len; left out were 1 not text (b.png: a PNG image)")) << error.hint();
}

// The only file of a path: nobody would be told what is trained on instead.
TEST_F(Text, ASingleFileThatIsNoTextIsRefused) {
  write("a.png", "\x89PNG\r\n\x1a\n");
  write("shard.bin", std::string(100, '\1'));
  write("pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n");
  EXPECT_TRUE(contains(error_of([&] { load("a.png"); }).what(), "a.png is a PNG image, not text"));
  const Error shard = error_of([&] { load("shard.bin"); }), pointer = error_of([&] { load("pointer"); });
  EXPECT_TRUE(contains(shard.what(), "shard.bin is binary data, not text"));
  EXPECT_TRUE(contains(shard.hint(), "token ids"));
  EXPECT_TRUE(contains(pointer.what(), "pointer is a Git LFS pointer, not text"));
  EXPECT_TRUE(contains(pointer.hint(), "git lfs pull"));
  fs::remove(directory_ / "pointer");
  EXPECT_TRUE(contains(error_of([&] { load(); }).what(),
                       "; left out: 2 not text (a.png: a PNG image, shard.bin: binary data)"));
}

// Its middle is text; a file that begins as text may still be an archive behind it.
TEST_F(Text, ALargeFileIsLookedAtBeyondItsBeginning) {
  const std::string mebibyte(1 << 20, 'x');
  write("a", mebibyte + mebibyte + std::string(1 << 16, '\2'));
  write("b", mebibyte + mebibyte);
  write("c", mebibyte + "a rare \0 in between"s + mebibyte);
  EXPECT_EQ(load(), mebibyte + mebibyte + '\0' + mebibyte + "a rare \0 in between"s + mebibyte);
}

TEST_F(Text, TheKernelsOwnFileSystemsAreNotEntered) {
  if (!fs::exists("/proc/self")) GTEST_SKIP() << "no /proc here";
  write("a", "a");
  fs::create_directory_symlink("/proc/self", directory_ / "process");
  EXPECT_EQ(load(), "a");
  EXPECT_TRUE(contains(describe(*load_text(directory_)), "left out: 1 of pseudo file systems (process)"));
  EXPECT_TRUE(contains(error_of([] { load_text("/proc/self"); }).what(), "/proc/self is a pseudo file system"));
  EXPECT_TRUE(contains(error_of([] { load_text("/proc/*/status"); }).what(), "of pseudo file systems (/proc)"));
}

TEST_F(Text, PatternsFollowTheShellsRules) {
  write("d1/a.txt", "1");
  write("d2/a.txt", "2");
  write("d2/.a.txt", "hidden");
  write("e/b.md", "3");
  write("[x]/q", "4");
  EXPECT_EQ(load("*/a.txt"), "1\0002"s);
  EXPECT_EQ(load("d?/*"), "1\0002"s);
  EXPECT_EQ(load("[de]*/*.[mt]*"), "1\0002\0003"s);
  EXPECT_EQ(load("d[!1]/*"), "2");
  EXPECT_EQ(load("\\[x\\]/*"), "4");
  EXPECT_EQ(load("e*/"), "3");
  write("d1/deep/er/c.txt", "5");
  write("d1/.deep/c.txt", "hidden");
  write("top.txt", "0");
  EXPECT_EQ(load("**/*.txt"), "1\0005\0002\0000"s);
  EXPECT_EQ(load("d1/**/c.txt"), "5");
  EXPECT_EQ(load("d1/**"), "1\0005"s);
  EXPECT_EQ(load("**/er/*"), "5");
  ASSERT_EQ(::mkfifo((directory_ / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(contains(error_of([&] { load("pip*"); }).what(), "no files in"));
}

TEST_F(Text, ALongSearchSaysWhereItIs) {
  write("deep/a.txt", "a");
  testing::internal::CaptureStderr();
  ProgressTimer impatient(0);
  EXPECT_EQ(find_files(directory_, impatient).files.size(), 1U);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(contains(said, "searching " + directory_.string() + " for text: 0 files so far")) << said;
  testing::internal::CaptureStderr();
  ProgressTimer patient;
  find_files(directory_, patient);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(Text, UnreadableFileIsAUserError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root reads everything";
  write("secret", "secret");
  fs::permissions(directory_ / "secret", fs::perms::none);
  EXPECT_TRUE(contains(error_of([&] { load(); }).what(), "secret"));
}

TEST_F(Text, TheWholeSizeIsBounded) {
  write("a", std::string(600, 'a'));
  write("b", std::string(600, 'b'));
  EXPECT_EQ(load_text(directory_, 1201)->bytes.size(), 1201U);
  const Error error = error_of([&] { load_text(directory_, 1200); });
  EXPECT_TRUE(contains(error.what(), "larger than 1.17 KiB")) << error.what();
  EXPECT_TRUE(contains(error.what(), "b has 600 B and 1 files come before it")) << error.what();
}

TEST(ByteDataset, BlocksOverlapByTheLastLabel) {
  const ByteDataset data(counting(41), {.seq_len = 4, .split = TextSplit::validation, .holdout_every = 2});
  EXPECT_EQ(data.size(), 5);
  EXPECT_EQ(tokens_of(data, 0, 4), (std::vector<std::int32_t>{4, 5, 6, 7, 8}));
  EXPECT_EQ(tokens_of(data, 4, 4), (std::vector<std::int32_t>{36, 37, 38, 39, 40}));
  EXPECT_EQ(tokens_of(data, 5, 4), tokens_of(data, 0, 4));
}

TEST(ByteDataset, BytesAreUnsigned) {
  const ByteDataset data(text_of("\xff\x80\x01"), {.seq_len = 2});
  EXPECT_EQ(tokens_of(data, 0, 2), (std::vector<std::int32_t>{255, 128, 1}));
  EXPECT_EQ(data.vocab_size(), 256);
}

TEST(ByteDataset, TrainAndValidationShareNoBlock) {
  for (const std::int64_t every : {2, 3, 10}) {
    for (int size = static_cast<int>(every) * 5 + 1; size < 256; size += 7) {
      const ByteOptions options{.seq_len = 5, .holdout_every = every};
      ByteOptions train_options = options, held_options = options;
      train_options.split = TextSplit::train;
      held_options.split = TextSplit::validation;
      const ByteDataset all(counting(size), options), train(counting(size), train_options),
          held(counting(size), held_options);
      std::set<std::int64_t> blocks;
      for (std::int64_t i = 0; i < train.size(); ++i) {
        EXPECT_NE(train.block(i) % every, every - 1);
        EXPECT_TRUE(blocks.insert(train.block(i)).second);
      }
      for (std::int64_t i = 0; i < held.size(); ++i) {
        EXPECT_EQ(held.block(i) % every, every - 1);
        EXPECT_TRUE(blocks.insert(held.block(i)).second);
      }
      EXPECT_EQ(std::ssize(blocks), all.size());
      EXPECT_EQ(*blocks.rbegin(), all.size() - 1);
      EXPECT_EQ(all.size(), (size - 1) / 5);
    }
  }
}

TEST(ByteDataset, EachEpochIsANewOrderOfAllBlocks) {
  const ByteDataset data(counting(201), {.seq_len = 2, .split = TextSplit::train, .seed = 5});
  std::vector<std::int64_t> first, second;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    first.push_back(data.block(i));
    second.push_back(data.block(data.size() + i));
  }
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set(first.begin(), first.end()), std::set(second.begin(), second.end()));
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), 90U);

  const ByteDataset again(counting(201), {.seq_len = 2, .split = TextSplit::train, .seed = 5});
  const ByteDataset other(counting(201), {.seq_len = 2, .split = TextSplit::train, .seed = 6});
  std::vector<std::int64_t> same, different;
  for (std::int64_t i = 0; i < data.size(); ++i) {
    same.push_back(again.block(i));
    different.push_back(other.block(i));
  }
  EXPECT_EQ(first, same);
  EXPECT_NE(first, different);
}

TEST(ByteDataset, AtMostTheSamplesAskedFor) {
  const ByteDataset data(counting(201), {.seq_len = 2, .split = TextSplit::train, .samples = 7});
  EXPECT_EQ(data.size(), 7);
  for (std::int64_t i = 0; i < 7; ++i) EXPECT_LT(data.block(i), 7);
}

TEST(ByteDataset, EdgeSizes) {
  EXPECT_EQ(ByteDataset(counting(5), {.seq_len = 4}).size(), 1);
  EXPECT_EQ(ByteDataset(counting(8), {.seq_len = 4}).size(), 1);
  EXPECT_EQ(ByteDataset(counting(9), {.seq_len = 4}).size(), 2);
  EXPECT_EQ(ByteDataset(counting(2), {.seq_len = 1, .split = TextSplit::train, .holdout_every = 2}).size(), 1);
  EXPECT_THROW(ByteDataset(counting(9), {.seq_len = 4}).block(-1), Error);
  const ByteDataset data(counting(9), {.seq_len = 4});
  std::vector<std::int32_t> wrong(4);
  EXPECT_THROW(data.sample(0, wrong), Error);
}

TEST(ByteDataset, TooLittleTextIsAUserError) {
  const auto what = [](int size, const ByteOptions& options) {
    const Error error = error_of([&] { ByteDataset(counting(size), options); });
    return error.what() + ": "s + error.hint();
  };
  EXPECT_EQ(what(4, {.seq_len = 4}),
            "text is too small: 4 bytes in 1 files give 0 blocks of seq_len 4, one needs 1: "
            "give more text or a smaller seq_len");
  EXPECT_EQ(what(37, {.seq_len = 4, .split = TextSplit::validation}),
            "text is too small: 37 bytes in 1 files give 9 blocks of seq_len 4, one for validation needs 10: "
            "give more text, a smaller seq_len, or hold out one of fewer blocks");
  EXPECT_TRUE(contains(what(0, {.seq_len = 4, .split = TextSplit::train}), "0 bytes"));
  EXPECT_TRUE(contains(what(9, {.seq_len = 0}), "seq_len 0"));
  EXPECT_TRUE(contains(what(9, {.seq_len = 4, .holdout_every = 1}), "one of 1 held out"));
}

TEST(ByteDataset, FillsABatch) {
  const ByteDataset data(counting(41), {.seq_len = 4, .split = TextSplit::validation, .holdout_every = 2});
  const std::vector<std::int64_t> ids{1, 0};
  const Batch batch = make_batch(data, ids, 4);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{12, 13, 14, 15, 4, 5, 6, 7}));
  EXPECT_EQ(batch.labels, (std::vector<std::int32_t>{13, 14, 15, 16, 5, 6, 7, 8}));
}

}  // namespace
}  // namespace sluice
