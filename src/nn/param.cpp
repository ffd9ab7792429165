#include "nn/param.h"

#include <utility>

namespace sluice {

Param::Param(ParamSpec param_spec, int ep_rank, int ep_size) : spec(std::move(param_spec)), local_shape(spec.shape) {
  if (spec.mesh == ParamMesh::dense || ep_size == 1) return;
  const Shape& s = spec.shape;
  require((s.rank() == 2 || s.rank() == 3) && s[0] % ep_size == 0, "{}: {} cannot be split over {} ranks", spec.name,
          s.str(), ep_size);
  local_shape = s.rank() == 2 ? Shape{s[0] / ep_size, s[1]} : Shape{s[0] / ep_size, s[1], s[2]};
  first = ep_rank * local_shape.numel();
}

}  // namespace sluice
