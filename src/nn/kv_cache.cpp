#include "nn/kv_cache.h"

#include <algorithm>

namespace sluice {

CachedKeys append(Context& ctx, const KvCache& cache, const Tensor& k, const Tensor& v, const AttentionSpec& spec) {
  const int64_t t = k.dim(0), end = cache.past + t;
  require(end <= cache.k.dim(0), "{} tokens behind {} in a cache for {}", t, cache.past, cache.k.dim(0));
  ctx.run(Copy{.y = cache.k.rows(cache.past, t), .x = k});
  ctx.run(Copy{.y = cache.v.rows(cache.past, t), .x = v});
  const int64_t first = spec.window > 0 ? std::max<int64_t>(0, cache.past - spec.window + 1) : 0;
  CachedKeys seen{.k = cache.k.rows(first, end - first), .v = cache.v.rows(first, end - first), .spec = spec};
  seen.spec.seq_len = t;
  seen.spec.past = cache.past - first;
  return seen;
}

}  // namespace sluice
