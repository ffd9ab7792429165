// Which bytes of a checkpoint's files hold which elements of which parameter, from the files' headers alone
// (rank_file.h). Headers may be hostile: every number is checked before it is believed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/safetensors_format.h"
#include "checkpoint/state_slice.h"

namespace sluice {

// A parameter as a checkpoint has it.
struct StoredParameter {
  safetensors::Extents shape;
  std::map<StateKind, safetensors::Type> kinds;  // that are kept of it, and their type: F64, F32, F16 or BF16

  int64_t numel() const;
};

// Elements [first, first + count) of a parameter's state: bytes of a file from `begin` on, a multiple of their size.
struct StoredRun {
  int64_t first = 0;
  int64_t count = 0;
  size_t file = 0;
  uint64_t begin = 0;
};

class SliceTable {
 public:
  // The next file. User error that names `source` where a tensor is no slice of a parameter, or of another one than the
  // files before it have.
  void add_file(const safetensors::Header& header, std::string_view source);
  // After the last file: what elements are in none of them or in several; nothing where each is there once.
  std::optional<std::string> find_fault();

  const std::map<std::string, StoredParameter, std::less<>>& parameters() const { return parameters_; }
  // By rising `first`, of files without a fault; empty where some of the elements are not there.
  std::vector<StoredRun> runs(StateKind kind, std::string_view parameter, int64_t first, int64_t count) const;

 private:
  void add_slice(const safetensors::Entry& entry, const safetensors::Metadata& metadata, std::string_view source);

  size_t files_ = 0;
  std::map<std::string, StoredParameter, std::less<>> parameters_;
  std::map<std::pair<std::string, StateKind>, std::vector<StoredRun>> stored_;
};

}  // namespace sluice
