// Which blocks of a text a dataset has: all, or those of every `holdout_every` that are for training or validation.
#pragma once

#include <cstdint>

namespace sluice {

enum class TextSplit : uint8_t { all, train, validation };

}  // namespace sluice
