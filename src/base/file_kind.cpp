#include "base/file_kind.h"

#include <algorithm>
#include <array>

namespace sluice {
namespace {

using namespace std::string_view_literals;

struct Mark {
  std::string_view bytes;
  FileFormat format;
  std::size_t at = 0;      // where in the file
  bool like_text = false;  // a text may begin so too: other bytes must tell
};

constexpr FileFormat kPage{"an HTML page",
                           "a browser's page was saved, perhaps a site's error: download the file itself", true};
constexpr FileFormat kSafetensors{"a safetensors file"};
constexpr FileFormat kUtf16{"UTF-16 text", "make it UTF-8: iconv -f UTF-16 -t UTF-8"};

// The more special ones first.
constexpr auto marks = std::to_array<Mark>({
    {"version https://git-lfs.github.com/spec/v"sv,
     {"a Git LFS pointer", "it stands for a file that was not fetched: git lfs pull in its directory, or download it"}},
    {"\x89PNG\r\n\x1a\n"sv, {"a PNG image"}},
    {"\xff\xd8\xff"sv, {"a JPEG image"}},
    {"GIF8"sv, {"a GIF image"}, 0, true},
    {"WEBP"sv, {"a WebP image"}, 8, true},
    {"WAVE"sv, {"a WAV recording"}, 8, true},
    {"%PDF-"sv, {"a PDF document"}},
    {"\x1f\x8b"sv, {"a gzip archive"}},
    {"BZh"sv, {"a bzip2 archive"}, 0, true},
    {"\xfd\x37zXZ\0"sv, {"an xz archive"}},
    {"\x28\xb5\x2f\xfd"sv, {"a zstd archive"}},
    {"7z\xbc\xaf\x27\x1c"sv, {"a 7-Zip archive"}},
    {"PK\x03\x04"sv, {"a zip archive"}},
    {"ustar"sv, {"a tar archive"}, 257, true},
    {"GGUF"sv, {"a GGUF model"}, 0, true},
    {"\x89HDF\r\n\x1a\n"sv, {"an HDF5 file"}},
    {"\x93NUMPY"sv, {"a NumPy array"}},
    {"\x80\x02"sv, {"a Python pickle"}},
    {"\x80\x03"sv, {"a Python pickle"}},
    {"\x80\x04"sv, {"a Python pickle"}},
    {"\x80\x05"sv, {"a Python pickle"}},
    {"PAR1"sv, {"a Parquet file"}, 0, true},
    {"ARROW1\0"sv, {"an Arrow file"}},
    {"MMIDIDX\0"sv, {"an index of Megatron's token ids"}},
    {"SQLite format 3\0"sv, {"an SQLite database"}},
    {"\x7f\x45LF"sv, {"an ELF program"}},
    {"PACK\0"sv, {"a Git pack"}},
    {"\xff\xfe"sv, kUtf16},
    {"\xfe\xff"sv, kUtf16},
});

// The length of the header, and the header.
bool is_safetensors(std::string_view head) {
  return head.size() > 9 && head.substr(5, 3) == "\0\0\0"sv && head.substr(8).starts_with(R"({")");
}

bool is_page(std::string_view head) {
  const std::size_t begin = head.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return false;
  const auto opens = [&](std::string_view tag) {
    return head.size() - begin >= tag.size() &&
           std::ranges::equal(head.substr(begin, tag.size()), tag,
                              [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
  };
  return opens("<!doctype html") || opens("<html");
}

}  // namespace

const FileFormat* format_of(std::string_view head) {
  for (const Mark& mark : marks) {
    if (head.size() < mark.at || !head.substr(mark.at).starts_with(mark.bytes)) continue;
    if (!mark.like_text || looks_binary(head)) return &mark.format;
  }
  if (is_safetensors(head)) return &kSafetensors;
  return is_page(head) ? &kPage : nullptr;
}

bool looks_binary(std::string_view bytes) {
  std::size_t odd = 0;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    // Backspace (overstruck manual pages), tab, line ends, form feed, and escape (colours) are of text.
    const bool control = byte < 0x20U && (byte < 0x08U || byte > 0x0DU) && byte != 0x1BU;
    odd += control || byte == 0x7FU ? 1 : 0;
  }
  return odd * 50 > bytes.size();
}

}  // namespace sluice
