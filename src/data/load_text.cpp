// Reading the files of a text, but for those that are none.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/file.h"
#include "base/file_kind.h"
#include "base/log.h"
#include "base/text.h"
#include "data/text_files.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;

// What a file is that is not text.
struct Verdict {
  std::string name;  // "a PNG image"; empty: it is text
  std::string_view remedy;
};

// By its beginning and, of a large file, by blocks spread over the rest up to its end.
Verdict examine(const fs::path& path) {
  constexpr std::size_t block = 1 << 16, most = 16;
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (const FileFormat* format = format_of(bytes.substr(0, block)); format != nullptr && !format->text) {
    return {std::string(format->name), format->remedy};
  }
  const std::size_t blocks = std::min(most, (bytes.size() + block - 1) / block);
  for (std::size_t i = 0; i < blocks; ++i) {
    // The last one ends with the file, and may overlap the one before it.
    const std::size_t begin = blocks == 1 ? 0 : (bytes.size() - block) / (blocks - 1) * i;
    if (looks_binary(bytes.substr(i + 1 == blocks && i > 0 ? bytes.size() - block : begin, block))) {
      return {"binary data", "a token is a byte of text here; files of token ids (nanoGPT, Megatron) are not read"};
    }
  }
  return {};
}

void append(std::string& list, const LeftOut& entries, std::string_view what) {
  if (entries.count == 0) return;
  const std::string more = entries.count > std::ssize(entries.first)
                               ? fmt::format(" and {} more", format_count(entries.count - std::ssize(entries.first)))
                               : "";
  list += fmt::format("{}{} {} ({}{})", list.empty() ? "" : ", ", format_count(entries.count), what,
                      fmt::join(entries.first, ", "), more);
}

void add_file(ByteText& text, const fs::path& file, std::size_t max_bytes) {
  if (text.files > 0) text.bytes += '\0';
  const std::size_t left = max_bytes - std::min(max_bytes, text.bytes.size());
  std::error_code code;
  const std::uintmax_t size = fs::file_size(file, code);
  if (!code && size > left) {
    throw user_error("the text in {} is larger than {}: {} has {} and {} files come before it", text.name,
                     format_bytes(max_bytes), file.string(), format_bytes(size), text.files)
        .advise("give a path with less text");
  }
  text.bytes += read_file(file, left);
  ++text.files;
}

}  // namespace

std::string list_left_out(const ByteText& text) {
  std::string list;
  append(list, text.hidden, "hidden");
  append(list, text.not_text, "not text");
  append(list, text.systems, "of pseudo file systems");
  return list;
}

void LeftOut::add(const std::string& name) {
  constexpr std::size_t shown = 3;
  if (first.size() < shown) first.push_back(printable_line(name));
  ++count;
}

std::shared_ptr<const ByteText> load_text(const fs::path& path, std::size_t max_bytes) {
  ProgressTimer timer;
  FoundFiles found = find_files(path, timer);
  auto text = std::make_shared<ByteText>();
  text->name = path.string();
  text->hidden = std::move(found.hidden);
  text->systems = std::move(found.systems);
  for (const fs::path& file : found.files) {
    if (timer.due()) {
      log::info("reading text in {}: {} of {} files, {}; Ctrl-C ends it", printable_line(path.string()),
                format_count(text->files + text->not_text.count), format_count(std::ssize(found.files)),
                format_bytes(text->bytes.size()));
    }
    const Verdict verdict = examine(file);
    if (verdict.name.empty()) {
      add_file(*text, file, max_bytes);
    } else if (found.named) {
      throw user_error("{} is {}, not text", path.string(), verdict.name).advise(std::string(verdict.remedy));
    } else {
      text->not_text.add(fmt::format("{}: {}", name_below(file, path), verdict.name));
    }
  }
  if (text->files > 0) return text;
  const std::string left_out = list_left_out(*text);
  if (left_out.empty()) throw user_error("no files in {}", path.string()).advise("give a path with text files");
  throw user_error("no text in {}; left out: {}", path.string(), left_out)
      .advise(text->hidden.count > 0
                  ? "hidden entries are read where the path names them, or a pattern such as DIRECTORY/.*"
                  : "give a path with text files");
}

std::string describe(const ByteText& text) {
  const std::string left_out = list_left_out(text);
  return fmt::format("{}: {} file{}, {} of text{}", printable_line(text.name), format_count(text.files),
                     text.files == 1 ? "" : "s", format_bytes(text.bytes.size()),
                     left_out.empty() ? "" : "; left out: " + left_out);
}

}  // namespace sluice
