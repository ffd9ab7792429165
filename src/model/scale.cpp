#include "model/scale.h"

#include <algorithm>
#include <numeric>

#include "base/error.h"
#include "model/family.h"

namespace sluice {
namespace {

struct Sizes {
  int64_t hidden, head_dim, latent_multiple, ffn_multiple, layers, vocab, seq_len, window;
};

constexpr int64_t small_top_k = 2;  // the fewest that still makes a token visit several experts

constexpr Sizes sizes_of(Scale scale) {
  return scale == Scale::laptop ? Sizes{256, 64, 8, 32, 4, 4096, 512, 128} : Sizes{32, 8, 4, 4, 2, 256, 64, 16};
}

// a b / c to the nearest multiple of `multiple`, at least one.
int64_t proportional(int64_t a, int64_t b, int64_t c, int64_t multiple) {
  const int64_t groups = (2 * a * b + c * multiple) / (2 * c * multiple);
  return std::max<int64_t>(1, groups) * multiple;
}

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Sets fields to smaller values and records each change.
class Shrinker {
 public:
  Shrinker(ScaledModel& scaled, const ScaleNeeds& needs) : scaled_(scaled), needs_(needs) {}

  void shrink(std::string_view key, int64_t& field, int64_t value, std::string reason) {
    if (value >= field || kept(key)) return;
    scaled_.changes.push_back({std::string(key), field, value, std::move(reason)});
    field = value;
  }
  bool kept(std::string_view key) const {
    return std::find(needs_.keep.begin(), needs_.keep.end(), key) != needs_.keep.end();
  }

 private:
  ScaledModel& scaled_;
  const ScaleNeeds& needs_;
};

}  // namespace

Scale parse_scale(std::string_view word, std::string where) {
  for (const Scale scale : {Scale::laptop, Scale::tiny}) {
    if (word == name_of(scale)) return scale;
  }
  throw user_error("{} is not a scale", word).at(std::move(where)).advise("there are: laptop, tiny");
}

std::string_view name_of(Scale scale) {
  return scale == Scale::laptop ? "laptop" : "tiny";
}

ScaledModel scale_model(const ModelConfig& model, int64_t seq_len, Scale scale, const ScaleNeeds& needs) {
  require(needs.ep >= 1 && needs.min_layers >= 1 && seq_len >= 1, "scale for ep {}, {} layers, {} tokens", needs.ep,
          needs.min_layers, seq_len);
  const Sizes sizes = sizes_of(scale);
  const std::string_view experts_key = family_of(model).experts_key;
  ScaledModel scaled{.model = model, .seq_len = seq_len, .changes = {}};
  ModelConfig& m = scaled.model;
  Shrinker to(scaled, needs);

  to.shrink("hidden_size", m.hidden_size, sizes.hidden, fmt::format("width of the {} scale", name_of(scale)));
  const std::string head_reason = fmt::format("head size of the {} scale", name_of(scale));
  if (m.kv_lora > 0) {
    to.shrink("q_lora_rank", m.q_lora,
              proportional(model.q_lora, m.hidden_size, model.hidden_size, sizes.latent_multiple),
              "query latent / hidden stays");
    to.shrink("kv_lora_rank", m.kv_lora,
              proportional(model.kv_lora, m.hidden_size, model.hidden_size, sizes.latent_multiple),
              "key and value latent / hidden stays");
    to.shrink("qk_nope_head_dim", m.nope_dim, sizes.head_dim, head_reason);
    to.shrink("qk_rope_head_dim", m.head_dim, sizes.head_dim / 2, head_reason);
    to.shrink("v_head_dim", m.v_dim, sizes.head_dim, head_reason);
  } else {
    to.shrink("head_dim", m.head_dim, sizes.head_dim, head_reason);
  }

  // Of a value, which is what comes back from attention; heads head_dim / hidden as before, in whole groups of heads
  // that share a kv head.
  const int64_t group = model.num_heads / model.num_kv_heads;
  const auto head_size = [](const ModelConfig& c) { return c.kv_lora > 0 ? c.v_dim : c.head_dim; };
  const int64_t old_width = model.num_heads * head_size(model);
  const int64_t heads = proportional(old_width, m.hidden_size, model.hidden_size * head_size(m), group);
  if (to.kept("num_attention_heads") || to.kept("num_key_value_heads")) {
    to.shrink("num_attention_heads", m.num_heads, round_up(heads, m.num_kv_heads), "heads x head_dim / hidden stays");
  } else if (heads < m.num_heads) {
    to.shrink("num_attention_heads", m.num_heads, heads, "heads x head_dim / hidden stays");
    to.shrink("num_key_value_heads", m.num_kv_heads, heads / group, "heads per kv head stay");
  }
  to.shrink(family_of(model).expert_width_key, m.moe_ffn,
            proportional(model.moe_ffn, m.hidden_size, model.hidden_size, sizes.ffn_multiple),
            "expert width / hidden stays");

  to.shrink("intermediate_size", m.ffn, proportional(model.ffn, m.hidden_size, model.hidden_size, sizes.ffn_multiple),
            "MLP width / hidden stays");
  if (m.num_experts > 0) {
    to.shrink("num_experts_per_tok", m.top_k, std::min(small_top_k, m.num_experts),
              "the fewest that still send a token to several experts");
    const int64_t experts = (model.num_experts * m.top_k + model.top_k - 1) / model.top_k;
    to.shrink(experts_key, m.num_experts, round_up(experts, std::lcm(needs.ep, model.sigmoid.groups)),
              fmt::format("experts / top-k stays, in multiples of the row's ep {}", needs.ep));
  }

  to.shrink("num_hidden_layers", m.num_layers, std::max(sizes.layers, needs.min_layers),
            needs.min_layers > sizes.layers ? fmt::format("one for each of {} stages and chunks", needs.min_layers)
                                            : fmt::format("depth of the {} scale", name_of(scale)));
  to.shrink("first_k_dense_replace", m.dense_layers, 1, "one stands for the dense layers");
  to.shrink("decoder_sparse_step", m.sparse_step, 2, "every other layer has experts");
  to.shrink("sliding_window", m.window, sizes.window, fmt::format("window of the {} scale", name_of(scale)));
  to.shrink("vocab_size", m.vocab_size, sizes.vocab, "keeps the head's share of the work small");
  to.shrink("seq_len", scaled.seq_len, sizes.seq_len, fmt::format("sequence of the {} scale", name_of(scale)));

  validate(m, HfConfig(fmt::format("scale {}", name_of(scale))), experts_key);
  return scaled;
}

}  // namespace sluice
