// The global gradient norm and clipping by it.
#pragma once

#include <vector>

#include "comm/mesh.h"
#include "parallel/flat_group.h"

namespace sluice {

// sum_squares (f64 [1]) = the sum of squares of all gradients in the world, each parameter counted once.
void sum_gradient_squares(Context& ctx, Mesh& mesh, const std::vector<FlatGroup*>& groups, const Tensor& sum_squares);

}  // namespace sluice
