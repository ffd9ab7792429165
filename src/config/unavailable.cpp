#include <algorithm>

#include "config/load.h"

namespace sluice::config {

std::vector<Unavailable> unavailable(const Config& config) {
  constexpr const char* instead = "8-bit products are not available, all have runtime.dtype";
  std::vector<Unavailable> list;
  const auto add = [&](const char* key, std::string value) {
    list.push_back({key, std::move(value), config.origin(key).place(), instead});
  };
  const Backend& backend = config.model.backend;
  constexpr const char* te_fp8 = "model.backend.te_fp8.recipe";
  if (backend.te_fp8.recipe) {
    add(te_fp8, std::string(word(*backend.te_fp8.recipe)));
  } else if (!config.is_set(te_fp8)) {
    // The section alone asks for it too, an empty one or its class's name.
    const auto section = std::ranges::find_if(config.ignored, [](const IgnoredKey& ignored) {
      return ignored.key == "model.backend.te_fp8" || ignored.key == "model.backend.te_fp8._target_";
    });
    if (section != config.ignored.end()) {
      list.push_back({te_fp8, std::string(word(Fp8Recipe::current)), section->where, instead});
    }
  }
  if (backend.experts == "torch_mm_mxfp8") add("model.backend.experts", backend.experts);
  if (config.fp8.enabled) add("fp8.enabled", config.fp8.recipe_name.value_or("true"));
  return list;
}

}  // namespace sluice::config
