// What stands at a path that results go to, and streams that take them.
#include "base/output.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>

#include "base/file.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

using Kind = OutputPlace::Kind;

class Output : public testing::Test {
 public:
  Output() { fs::create_directories(at_); }
  ~Output() override { fs::remove_all(at_); }

 protected:
  const fs::path at_ = fs::temp_directory_path() / ("sluice-output-" + std::to_string(::getpid()) +
                                                    testing::UnitTest::GetInstance()->current_test_info()->name());
};

template <class Call>
std::string error_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return describe(error);
  }
  return "no error";
}

TEST_F(Output, WhatStandsAtAPath) {
  write_file_atomic(at_ / "file", "x");
  ASSERT_EQ(::mkfifo((at_ / "fifo").c_str(), 0600), 0);
  fs::create_symlink("file", at_ / "link");
  fs::create_symlink("link", at_ / "link to a link");
  fs::create_symlink("nowhere", at_ / "dangling");
  fs::create_symlink("/dev/null", at_ / "null");
  fs::create_symlink("/dev/stdout", at_ / "stdout");
  fs::create_symlink("circle", at_ / "circle");
  EXPECT_EQ(output_place(at_ / "none").kind, Kind::nothing);
  EXPECT_EQ(output_place(at_ / "file").kind, Kind::file);
  EXPECT_EQ(output_place(at_).kind, Kind::directory);
  EXPECT_EQ(output_place(at_ / "fifo").kind, Kind::stream);
  EXPECT_EQ(output_place(at_ / "null").kind, Kind::stream);
  EXPECT_EQ(output_place("/dev/full").kind, Kind::stream);
  EXPECT_EQ(output_place(at_ / "link to a link").path, at_ / "file");
  EXPECT_EQ(output_place(at_ / "dangling").path, at_ / "nowhere");
  EXPECT_EQ(output_place(at_ / "dangling").kind, Kind::nothing);
  for (const fs::path& path :
       {fs::path("/dev/stdout"), at_ / "stdout", fs::path("/dev/fd/1"), fs::path("/proc/self/fd/1"),
        fs::path("/proc") / std::to_string(::getpid()) / "fd" / "1"}) {
    EXPECT_EQ(output_place(path).kind, Kind::stream) << path;
    EXPECT_EQ(output_place(path).descriptor, 1) << path;
  }
  EXPECT_NE(error_of([&] { output_place(at_ / "circle"); }).find("Too many levels"), std::string::npos);
  EXPECT_NE(error_of([&] { output_place(at_ / "file" / "below"); }).find("Not a directory"), std::string::npos);
}

TEST_F(Output, ASocketIsNoPlace) {
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  const std::string name = (at_ / "s").string();
  ASSERT_LT(name.size(), sizeof address.sun_path);
  name.copy(address.sun_path, name.size());
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_EQ(::bind(socket.number(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(output_place(name).kind, Kind::other);
  EXPECT_EQ(output_place(name).what, "a socket");
}

TEST_F(Output, AFileIsMadeAnew) {
  const fs::path path = at_ / "log";
  OutputStream(output_place(path), false).write("first");
  EXPECT_NE(error_of([&] { OutputStream(output_place(path), false); }).find("File exists"), std::string::npos);
  fs::create_hard_link(path, at_ / "other name");
  const OutputStream again(output_place(path), true);
  again.write("second");
  again.write(" and third");
  EXPECT_EQ(read_file(path, 100), "second and third");
  EXPECT_EQ(read_file(at_ / "other name", 100), "first");
}

TEST_F(Output, APipeNeedsAReader) {
  const fs::path path = at_ / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { OutputStream(output_place(path), false); }).find("no program reads this pipe"),
            std::string::npos);
  const Descriptor reader(path, O_RDONLY | O_NONBLOCK, "open");
  OutputStream(output_place(path), false).write("text");
  std::array<char, 16> buffer{};
  EXPECT_EQ(::read(reader.number(), buffer.data(), buffer.size()), 4);
  EXPECT_TRUE(fs::is_fifo(path)) << "it is written to, not replaced";
}

// Another opening of a file that is a descriptor's would begin at its start.
TEST_F(Output, ADescriptorGoesOnWhereItIs) {
  const fs::path path = at_ / "file";
  const Descriptor file(path, O_WRONLY | O_CREAT, "create", 0600);
  write_all(file, "printed before, ", path);
  OutputStream(output_place("/dev/fd/" + std::to_string(file.number())), false).write("the result");
  EXPECT_EQ(read_file(path, 100), "printed before, the result");
  const int closed = ::dup(file.number());
  ::close(closed);
  EXPECT_NE(error_of([&] { OutputStream(output_place("/dev/fd/" + std::to_string(closed)), false); }), "no error");
}

TEST_F(Output, AFullDeviceIsAnError) {
  const OutputStream full(output_place("/dev/full"), false);
  EXPECT_NE(error_of([&] { full.write("x"); }).find("No space left"), std::string::npos);
}

}  // namespace
}  // namespace sluice
