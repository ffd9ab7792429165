// Runs the built program as a person or a script would, from the repository's root.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sluice::test {

struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
};

// `environment`: assignments in front, "NO_COLOR=1".
Outcome sluice(const std::vector<std::string>& arguments, const std::string& environment = "");
// On a terminal of its own, with colours unless `no_color`; `out` is what a person sees, both streams together. Sends
// an interrupt when `interrupt_at` has been seen (empty: never).
Outcome on_terminal(const std::vector<std::string>& arguments, const std::string& interrupt_at = "",
                    bool no_color = false);

// On a terminal that gets the signals of `then`, one after the other, when `seen` is on it: kHangUp closes it.
inline constexpr int kHangUp = -1;
Outcome signalled(const std::vector<std::string>& arguments, const std::string& seen, const std::vector<int>& then);
// A line of bash in the repository's root, where $SLUICE is the program.
Outcome shell(const std::string& line);

// A directory that is gone with this object.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  Folder(Folder&&) = delete;
  Folder& operator=(Folder&&) = delete;

  std::string path(const std::string& name) const { return (path_ / name).string(); }
  // Writes a file and returns its path.
  std::string file(const std::string& name, const std::string& contents) const;

 private:
  std::filesystem::path path_;
};

// A golden (tests/parity) as a directory of the hub, with a tokenizer file; returns its path. 72 tokens, 256 positions.
std::string hub_directory(const Folder& folder, const std::string& golden);

// Fails for each part that is not in the text.
void expect_in(const std::string& text, const std::vector<std::string>& parts);

// Of a configuration: a model that trains in milliseconds, and its data.
std::string small_model();
// A configuration of it that saves nothing.
std::string small_config();

std::vector<std::string> lines_of(const std::string& text);

}  // namespace sluice::test
