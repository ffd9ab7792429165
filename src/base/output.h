// Where results go: what stands at a path, and open files and streams that take one piece after the other.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/descriptor.h"

namespace sluice {

// What a path stands for. A stream (a pipe, a character device, a descriptor of this process such as /dev/stdout) takes
// what it gets at once; nothing of it is replaced.
struct OutputPlace {
  enum class Kind : uint8_t { nothing, file, directory, stream, other };

  std::filesystem::path path;  // links at its end followed, even where they lead to nothing
  Kind kind = Kind::nothing;
  int descriptor = -1;         // of this process, where it is one
  std::string_view what = {};  // of `other`: "a socket"
};
// User error for links without an end, or where the path cannot be looked at.
OutputPlace output_place(const std::filesystem::path& path);

// An open file or stream.
class OutputStream {
 public:
  // A file is made anew; one that is there is an error, or with `replace` gives way. User error for a pipe that no
  // program reads. Nothing waits.
  OutputStream(const OutputPlace& place, bool replace);
  // Throws where not all of it could be written.
  void write(std::string_view contents) const { write_all(file_, contents, path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  Descriptor file_;
};

}  // namespace sluice
