#include "trainer/precision.h"

#include <utility>

#include "config/load.h"

namespace sluice {

bool precision_is_open(const Config& config) {
  return config.origin("runtime.dtype").kind == config::Origin::Kind::preset;
}

void take_published_precision(Config& config, std::optional<Scale> scale, bool has_bf16_dot) {
  const config::Published& published = config.benchmark.published;
  const bool bf16 = published.gpus && published.precision == "BF16";
  const bool here = has_bf16_dot && config.runtime.device == DeviceKind::cpu;
  if (!bf16 || !here || scale == Scale::tiny || !precision_is_open(config)) return;
  config::set(config, "runtime.dtype", "bf16", config::Origin::rule("published in BF16"));
}

RunSpec computed_in(RunSpec spec, const Config& config, DType dtype) {
  spec.dtype = dtype;
  spec.optimizer.state_dtype = state_dtype_of(config, dtype);
  return spec;
}

}  // namespace sluice
