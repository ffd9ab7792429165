#include "base/file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "base/error.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// A directory of its own for each test, removed at the end.
class File : public testing::Test {
 protected:
  File() { fs::create_directories(directory_); }
  ~File() override { fs::remove_all(directory_); }

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
