// safetensors on disk: one file or a model of several with an index, read by mapping, written as a stream.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "checkpoint/safetensors_format.h"
#include "tensor/tensor.h"

namespace sluice::safetensors {

inline constexpr std::string_view kSingleFile = "model.safetensors";
inline constexpr std::string_view kIndexFile = "model.safetensors.index.json";

// A tensor of an open file; valid as long as the model it came from. Elements need not be aligned.
struct StoredTensor {
  TensorSpec spec;
  std::span<const std::byte> bytes;
  std::shared_ptr<const std::string> file = nullptr;  // its path
};

// All tensors of a model. Every header is read and checked on opening, the tensors' bytes when they are touched.
class Model {
 public:
  // A .safetensors file, an index (.json), or a directory with model.safetensors or model.safetensors.index.json (see
  // weight_files.h). With an index, its map and what the files hold must agree, but for names that no file has (see
  // absent()).
  explicit Model(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  // User error where there is none of this name.
  const StoredTensor& at(std::string_view name) const;
  // Tensors that the index puts into a file which has none of the name, with that file: most programs that write
  // models take such a model as one without these.
  const std::map<std::string, std::string, std::less<>>& absent() const { return absent_; }
  // Of all files together; where they differ the first one's.
  const Metadata& metadata() const { return metadata_; }
  uint64_t bytes() const;

 private:
  void add_file(const std::filesystem::path& path);
  void add_shards(const std::filesystem::path& index_path);

  std::filesystem::path path_;
  std::vector<MappedFile> files_;
  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> absent_;
  Metadata metadata_;
};

// Elements first, first + stride, ... of a stored tensor of floating type, converted to the dtype of `to`, a dense host
// tensor. Rounds to nearest even; FP8 is not read (its scales lie elsewhere).
void read_elements(const StoredTensor& from, int64_t first, const Tensor& to, int64_t stride = 1);

// Writes one file: the header at once, then the tensors as they come. The file appears under its name in finish().
class Writer {
 public:
  Writer(const std::filesystem::path& path, std::vector<TensorSpec> tensors, Metadata metadata = {});

  // In the order they must be written in, which is not always the one they were given in.
  const std::vector<Entry>& entries() const { return header_.entries; }
  // The next bytes of a tensor, all of it or a part.
  void write(std::string_view tensor, std::span<const std::byte> bytes);
  // Internal error unless every tensor was written whole.
  void finish();

 private:
  void skip_complete();

  Header header_;
  AtomicFile file_;
  size_t at_ = 0;
  uint64_t written_ = 0;  // of entry at_
};

// Writes a model into a directory: model.safetensors, or where its tensors have more than `max_file_bytes`, files
// model-00001-of-0000N.safetensors and their index, which is written last.
class ModelWriter {
 public:
  ModelWriter(std::filesystem::path directory, std::vector<TensorSpec> tensors, uint64_t max_file_bytes,
              Metadata metadata = {{"format", "pt"}});

  // As in Writer, over all files.
  const std::vector<TensorSpec>& tensors() const { return order_; }
  size_t files() const { return shards_.size(); }
  uint64_t bytes() const { return index_.total_bytes; }
  void write(std::string_view tensor, std::span<const std::byte> bytes);
  void finish();

 private:
  struct Shard {
    std::string file;
    std::vector<TensorSpec> tensors;
  };
  void next_shard();

  std::filesystem::path directory_;
  Metadata metadata_;
  std::vector<Shard> shards_;
  std::vector<TensorSpec> order_;
  Index index_;
  size_t begun_ = 0;  // shards
  std::unique_ptr<Writer> writer_;
};

}  // namespace sluice::safetensors
