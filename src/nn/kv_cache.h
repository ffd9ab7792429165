// What attention keeps of the tokens a sequence has had, so that the next ones need only queries of their own: keys,
// normed and rotated, and values, of every key/value head. Latent attention keeps them too and not its latents, which
// are narrower but would be expanded again for every token.
#pragma once

#include "device/context.h"

namespace sluice {

// Of one sequence in one block.
struct KvCache {
  Tensor k;          // [capacity, kv, d]
  Tensor v;          // [capacity, kv, dv]
  int64_t past = 0;  // tokens in it; whoever owns it adds those of a forward afterwards
};

// Rows of keys and values, and how queries of the new tokens see them.
struct CachedKeys {
  Tensor k;
  Tensor v;
  AttentionSpec spec;
};

// Stores k [t, kv, d] and v [t, kv, dv] of the next tokens behind the past ones (=). Returns what their queries see,
// with `spec` for it: behind a window only that.
CachedKeys append(Context& ctx, const KvCache& cache, const Tensor& k, const Tensor& v, const AttentionSpec& spec);

}  // namespace sluice
