// A model's parameters as a directory of the hub: safetensors, config.json, the tokenizer's files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.h"
#include "checkpoint/hub_match.h"
#include "device/pool.h"
#include "model/hf_config.h"

namespace sluice {

struct ExportOptions {
  uint64_t max_file_bytes = 5'000'000'000;
  int64_t piece_elements = 1 << 24;                                // of a tensor, in memory at once
  Pool* pool = nullptr;                                            // null: the caller's thread alone
  std::function<void(uint64_t done, uint64_t all)> progress = {};  // bytes; on the caller's thread
};

struct ExportCount {
  size_t files = 0;
  uint64_t bytes = 0;  // of the tensors
};

// The type an exported tensor is stored in: `dtype`, but f32 where less would change what the model chooses (the
// router's selection bias).
safetensors::Type export_type(std::string_view hub_name, safetensors::Type dtype);

// Bytes of the tensors of a model exported as `dtype`.
uint64_t export_bytes(const ModelConfig& model, DType dtype);

// Writes a checkpoint's values as `dtype` (bf16, f32 or f64), whatever layout the run had. Host memory is bounded: two
// pieces, or matrices where the hub has a stack of larger ones turned. User error where the checkpoint's parameters are
// not the model's; a runtime error names the first tensor with values that are not finite.
ExportCount export_checkpoint(const Checkpoint& checkpoint, const ModelConfig& model,
                              const std::filesystem::path& directory, DType dtype, const ExportOptions& options);

// Bytes of the tensors that convert_weights() writes.
uint64_t convert_bytes(const HubWeights& hub, const HubMatch& match, std::optional<DType> dtype);

// Writes a hub directory's weights anew, decoded and as `dtype` where there is one, else quantised ones as bf16 and
// others as they are; tensors that were left out go along.
ExportCount convert_weights(const HubWeights& hub, const HubMatch& match, const std::filesystem::path& directory,
                            std::optional<DType> dtype, const ExportOptions& options);

// Whether a model's directory may have a file of that name: config.json, weights, their index, what copy_hub_files()
// copies.
bool is_hub_file(std::string_view name);

// Copies config.json, without `quantization_config` and with the new `dtype` where there is one, and the files beside
// the weights that describe tokenizer, generation and licence. Returns how many.
int copy_hub_files(const std::filesystem::path& from, const std::filesystem::path& to, std::optional<DType> dtype);

// The type that config.json says the weights have; f32 where it says another than bf16, f32 or f64.
DType hub_dtype(const HfConfig& config);

// What makes a directory with weights, or a checkpoint, a model's: config.json of `source` (load_hf_config) with the
// overrides laid over it, and where `source` is a directory the files that copy_hub_files() copies.
void write_model_files(const std::string& source, std::span<const HfOverride> overrides,
                       const std::filesystem::path& directory, DType dtype);

}  // namespace sluice
