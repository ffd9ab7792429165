#include "base/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>

#include "base/error.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// A directory of its own for each test, removed at the end.
class File : public testing::Test {
 public:
  File() { fs::create_directories(directory_); }
  ~File() override { fs::remove_all(directory_); }

 protected:
  fs::path write(const std::string& name, const std::string& contents) const {
    std::ofstream(directory_ / name, std::ios::binary) << contents;
    return directory_ / name;
  }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()));
  }

  const fs::path directory_ =
      fs::temp_directory_path() /
      ("sluice-file-" + std::to_string(::getpid()) + testing::UnitTest::GetInstance()->current_test_info()->name());
};

template <class Call>
Error error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error was thrown";
  return {ErrorKind::internal, ""};
}

TEST_F(File, ReadsTheWholeFile) {
  const std::string contents = std::string(200000, 'x') + std::string("\0end", 4);
  const fs::path path = write("a", contents);
  EXPECT_EQ(read_file(path, contents.size()), contents);
  EXPECT_EQ(read_file(write("empty", ""), 0), "");
}

TEST_F(File, RefusesAFileAboveTheBound) {
  const fs::path path = write("a", "12345");
  const Error error = error_of([&] { read_file(path, 4); });
  EXPECT_EQ(error.kind(), ErrorKind::user);
  EXPECT_NE(std::string(error.what()).find("larger than the 4 bytes"), std::string::npos) << error.what();
}

TEST_F(File, NamesPathAndReason) {
  const Error missing = error_of([&] { read_file(directory_ / "none", 10); });
  EXPECT_EQ(missing.kind(), ErrorKind::user);
  EXPECT_EQ(missing.what(), "cannot open " + (directory_ / "none").string() + ": No such file or directory");
  const Error folder = error_of([&] { read_file(directory_, 10); });
  EXPECT_EQ(folder.what(), "cannot read " + directory_.string() + ": Is a directory");
  EXPECT_EQ(error_of([&] { MappedFile{directory_ / "none"}; }).kind(), ErrorKind::user);
  EXPECT_EQ(error_of([&] { MappedFile{directory_}; }).kind(), ErrorKind::user);
}

TEST_F(File, APipeIsReadOnlyWhereItWasNamed) {
  const fs::path path = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  // Nobody writes: neither waits.
  EXPECT_STREQ(error_of([&] { read_file(path, 10); }).what(),
               ("cannot read " + path.string() + ": it is a pipe, not a file").c_str());
  EXPECT_STREQ(error_of([&] { read_input(path, 10); }).what(),
               ("nothing came from the pipe " + path.string() + ": no program writes to it").c_str());
  // A writer that comes a moment later, and takes its time.
  const std::jthread writer([&] {
    const int file = ::open(path.c_str(), O_WRONLY);
    for (const char* part : {"one ", "two"}) {
      EXPECT_GT(::write(file, part, std::strlen(part)), 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ::close(file);
  });
  EXPECT_EQ(read_input(path, 10), "one two");
}

TEST_F(File, WhatNeverEndsIsNotRead) {
  EXPECT_STREQ(error_of([] { read_input("/dev/zero", 10); }).what(),
               "cannot read /dev/zero: it is a device, not a file");
  EXPECT_STREQ(error_of([] { read_file("/dev/null", 10); }).what(),
               "cannot read /dev/null: it is a device, not a file");
  EXPECT_EQ(read_input("/dev/null", 10), "");
}

TEST_F(File, LinksAreTheirFile) {
  const fs::path path = write("a", "x"), other = write("b", "x");
  fs::create_symlink(path, directory_ / "symbolic");
  fs::create_hard_link(path, directory_ / "hard");
  ASSERT_TRUE(file_id(path));
  EXPECT_EQ(file_id(path), file_id(directory_ / "symbolic"));
  EXPECT_EQ(file_id(path), file_id(directory_ / "hard"));
  EXPECT_NE(file_id(path), file_id(other));
  EXPECT_EQ(file_id(directory_ / "none"), std::nullopt);
}

TEST_F(File, WhereAFileSystemBegins) {
  EXPECT_TRUE(is_mount_point("/proc"));
  EXPECT_TRUE(is_mount_point("/"));
  EXPECT_FALSE(is_mount_point(directory_));
  EXPECT_FALSE(is_mount_point(directory_ / "none"));
}

TEST_F(File, ASourceThatIsCutShortIsNotTheTargetsFault) {
  const fs::path path = write("source", std::string(1 << 16, 'x'));
  const MappedFile source(path);
  AtomicFile target(directory_ / "target");
  fs::resize_file(path, 0);
  const Error error = error_of([&] { target.append(source.bytes()); });
  EXPECT_NE(std::string(error.what()).find("what is to be written there cannot be read"), std::string::npos);
  EXPECT_NE(error.hint().find("cut short"), std::string::npos);
}

TEST_F(File, SpaceIsThatOfTheDiskAPathWouldBeOn) {
  const auto here = free_bytes(directory_);
  ASSERT_TRUE(here);
  EXPECT_GT(*here, 0U);
  EXPECT_TRUE(free_bytes(directory_ / "not" / "yet" / "there"));
  EXPECT_TRUE(free_bytes("relative and not there"));
  EXPECT_EQ(free_bytes("/proc/self/fd"), std::nullopt) << "a file system that has no size";
}

TEST_F(File, AtomicWriteReplacesAndLeavesNothingBehind) {
  const fs::path path = directory_ / "state";
  write_file_atomic(path, "first");
  write_file_atomic(path, "second");
  EXPECT_EQ(read_file(path, 100), "second");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(File, AFailedWriteKeepsTheOldFile) {
  const fs::path path = directory_ / "taken";
  fs::create_directory(path);  // a directory cannot be replaced by a file
  EXPECT_EQ(error_of([&] { write_file_atomic(path, "text"); }).kind(), ErrorKind::user);
  EXPECT_TRUE(fs::is_directory(path));
  EXPECT_EQ(entries(), 1U);
  EXPECT_EQ(error_of([&] { write_file_atomic(directory_ / "no" / "such", "text"); }).kind(), ErrorKind::user);
}

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST_F(File, MapsAndMoves) {
  MappedFile file(write("a", "mapped"));
  EXPECT_EQ(text_of(file), "mapped");
  MappedFile moved = std::move(file);
  EXPECT_EQ(text_of(moved), "mapped");
  MappedFile empty(write("b", ""));
  EXPECT_TRUE(empty.bytes().empty());
  empty = std::move(moved);
  EXPECT_EQ(text_of(empty), "mapped");
}

}  // namespace
}  // namespace sluice
