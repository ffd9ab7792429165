#include "nn/param.h"

#include <utility>

namespace sluice {

Param::Param(ParamSpec param_spec, int ep_rank, int ep_size) : spec(std::move(param_spec)), local_shape(spec.shape) {
  if (spec.mesh == ParamMesh::dense || ep_size == 1) return;
  require(spec.shape.rank() == 3 && spec.shape[0] % ep_size == 0, "{}: {} cannot be split over {} ranks", spec.name,
          spec.shape.str(), ep_size);
  local_shape = {spec.shape[0] / ep_size, spec.shape[1], spec.shape[2]};
  first = ep_rank * local_shape.numel();
}

}  // namespace sluice
