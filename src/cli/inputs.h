// Which files a run reads, so that it writes none of them. A file is what it is by device and inode: hard and symbolic
// links to it count.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "config/config.h"

namespace sluice::cli {

class Inputs {
 public:
  Inputs();
  // Of a configuration: its file (or the directory that stands for one), its model's directory, its data.
  Inputs(const Config& config, const std::filesystem::path& file);

  // `what` stands in messages: "--prompt-file".
  void add_file(const std::filesystem::path& file, const std::string& what);
  // The files in a model's directory. Others may be put beside them, but none of a name that models are read from.
  void add_model(const std::filesystem::path& directory, const std::string& what);
  // A file, a directory with all below it, or a pattern; all that is or will be in them.
  void add_data(const std::filesystem::path& path, const std::string& what);

  // As what the file at `path` is read, or one made there would be; empty if it is not.
  std::string reader_of(const std::filesystem::path& path) const;

 private:
  void add_tree(const std::filesystem::path& directory, const std::string& what);

  std::map<FileId, std::string> files_;
  std::map<FileId, std::string> directories_;  // with all below them
  std::map<FileId, std::string> models_;
  std::vector<std::pair<std::string, std::string>> patterns_;  // absolute, and what
};

}  // namespace sluice::cli
