#include "base/file_kind.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace sluice {
namespace {

using namespace std::string_literals;

std::string name_of(const std::string& head) {
  const FileFormat* format = format_of(head);
  return format == nullptr ? "" : std::string(format->name);
}

TEST(FileKind, FormatsByTheirMarks) {
  const std::vector<std::pair<std::string, std::string>> known = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n", "a Git LFS pointer"},
      {"\x89PNG\r\n\x1a\n", "a PNG image"},
      {"\x1f\x8b\x08", "a gzip archive"},
      {"PK\x03\x04", "a zip archive"},
      {"GGUF\3\0\0\0"s, "a GGUF model"},
      {"PAR1\x15\x04\0"s, "a Parquet file"},
      {"MMIDIDX\0\0\1"s, "an index of Megatron's token ids"},
      {"\x7f\x45LF", "an ELF program"},
      {"\xff\xfe\x61\0"s, "UTF-16 text"},
      {" \n<!DOCTYPE html><html>", "an HTML page"},
      {"\x98\5\0\0\0\0\0\0{\"a\":"s, "a safetensors file"},
      {"name" + std::string(253, '\0') + "ustar\0"s, "a tar archive"}};
  for (const auto& [head, name] : known) EXPECT_EQ(name_of(head), name);
  // Texts that begin like a format, or are shorter than a mark.
  for (const char* const text :
       {"", "GGUF is a format", "PAR1", "the big WAVE of", "<", "version 2", "# title", "<p>"}) {
    EXPECT_EQ(name_of(text), "") << text;
  }
  EXPECT_TRUE(format_of("<html>")->text);
  EXPECT_FALSE(format_of("%PDF-1.4")->text);
}

TEST(FileKind, TextOfAnyEncodingIsNotBinary) {
  EXPECT_FALSE(looks_binary(""));
  EXPECT_FALSE(looks_binary("plain\r\n\ttext\f\x1b[1mbold\x1b[0m N\bN\n"));
  EXPECT_FALSE(looks_binary("na\xc3\xafve \xe6\x97\xa5"));
  std::string latin;
  for (int c = 0x80; c <= 0xff; ++c) latin += static_cast<char>(c);
  EXPECT_FALSE(looks_binary(latin));
  EXPECT_TRUE(looks_binary("a\0b"s));
  EXPECT_FALSE(looks_binary(std::string(60, 'a') + "\0"s + std::string(60, 'b')));
  EXPECT_FALSE(looks_binary(std::string(200, 'a') + "\x01\x02\x03\x7f"));
  EXPECT_TRUE(looks_binary(std::string(200, 'a') + "\x01\x02\x03\x04\x05"));
}

}  // namespace
}  // namespace sluice
