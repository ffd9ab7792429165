// What the tests of checkpoint share: a directory that goes away, errors as values, safetensors files made by hand.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace sluice::test {

// A directory of its own for each test, removed at the end.
class InDirectory : public testing::Test {
 protected:
  InDirectory() { std::filesystem::create_directories(directory_); }
  ~InDirectory() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  std::filesystem::path write(const std::filesystem::path& name, const std::string& contents) const {
    std::ofstream(directory_ / name, std::ios::binary) << contents;
    return directory_ / name;
  }

  const std::filesystem::path directory_ =
      std::filesystem::temp_directory_path() / ("sluice-checkpoint-" + std::to_string(::getpid()) +
                                                testing::UnitTest::GetInstance()->current_test_info()->name());
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

// A user error whose text, place and hint hold the parts and are no longer than a screen.
inline void expect_user_error(const Error& error, const std::vector<std::string>& parts) {
  const std::string text = describe(error);
  EXPECT_EQ(error.kind(), ErrorKind::user) << text;
  EXPECT_LT(text.size(), 4000U);
  for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
}

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

// A file with this header and `data_bytes` zeros behind it; `length` is what it announces instead of the truth.
inline std::string raw_file(const std::string& json, size_t data_bytes, uint64_t length) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(length >> (8 * i) & 0xff);
  return file + json + std::string(data_bytes, '\0');
}
inline std::string raw_file(const std::string& json, size_t data_bytes) {
  return raw_file(json, data_bytes, json.size());
}

}  // namespace sluice::test
