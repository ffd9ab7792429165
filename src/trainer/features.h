// What of a model a run really has, in words.
#pragma once

#include <string>

#include "parallel/stage.h"

namespace sluice {

// "latent attention 8 heads, query latent | YaRN x40 | 1 dense layer | 32 experts, 2 a token, a shared one | sigmoid
// router, 2 of 4 groups, selection bias": read off the blocks that will be built, of which there is at least one.
std::string describe_features(const StageConfig& model);

}  // namespace sluice
