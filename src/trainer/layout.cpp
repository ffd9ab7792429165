#include "trainer/layout.h"

namespace sluice {

Layout layout_of(const RunSpec& spec) {
  return {.ranks = spec.mesh.world,
          .gbs = spec.sampling.global_batch,
          .mbs = spec.sampling.micro_batch,
          .lbs = spec.local_batch,
          .ga = spec.accumulation(),
          .seq_len = spec.seq_len,
          .tp = spec.mesh.tp,
          .pp = spec.mesh.pp,
          .cp = spec.mesh.cp,
          .ep = spec.mesh.ep,
          .vp = spec.mesh.pp > 1 ? spec.chunks : 0,
          .fsdp = spec.mesh.fsdp()};
}

}  // namespace sluice
