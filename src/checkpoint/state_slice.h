// What a run keeps of its parameters: their values, and for those that gradients train both moments of the optimizer.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "nn/param.h"

namespace sluice {

// value: where there is an fp32 master, that; bf16 weights are its rounding and are not kept beside it.
enum class StateKind : uint8_t { value, moment1, moment2 };
inline constexpr std::array kStateKinds = {StateKind::value, StateKind::moment1, StateKind::moment2};

inline std::string_view name_of(StateKind kind) {
  constexpr std::array<std::string_view, kStateKinds.size()> names = {"value", "moment1", "moment2"};
  return names.at(static_cast<size_t>(kind));
}

// Elements [first, first + values.numel()) of a parameter, as the whole is numbered, on this rank.
struct StateSlice {
  StateKind kind = StateKind::value;
  const ParamSpec* param = nullptr;
  int64_t first = 0;
  Tensor values;
};

}  // namespace sluice
