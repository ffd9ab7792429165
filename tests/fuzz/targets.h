// What reads input that may be hostile, as functions of bytes: they return, or end the program with a message where the
// reader did anything but accept the input or refuse it with a user error.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>

namespace sluice::fuzz {

using Input = std::span<const std::byte>;

// As a safetensors file, as its JSON (the first byte says how many bytes of tensors follow), as a model's index.
void safetensors(Input input);
// As config.json.
void hf_config(Input input);
// As a configuration file; what is accepted is written out and must read back as the same.
void yaml(Input input);
// As a line of a training run's records.
void step_record(Input input);
// As a checkpoint's manifest, as what follows a manifest's hash, as one file's part of it.
void manifest(Input input);
// As the headers of a checkpoint's files, with 0xff between them; the first two bytes of each say how many bytes of
// slices follow it. As the place of a slice.
void checkpoint(Input input);

struct Target {
  std::string_view name;  // of its folder in tests/fuzz/corpus
  void (*run)(Input input);
};
inline constexpr std::array targets{
    Target{"safetensors", &safetensors}, Target{"hf_config", &hf_config}, Target{"yaml", &yaml},
    Target{"step_record", &step_record}, Target{"manifest", &manifest},   Target{"checkpoint", &checkpoint}};

}  // namespace sluice::fuzz
