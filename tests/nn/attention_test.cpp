// A block's attention as one value: each call goes to the kind that its configuration names, of as many as there are.
#include "nn/attention.h"

#include <gtest/gtest.h>

#include "support/compare.h"
#include "support/test_context.h"

namespace sluice::test {
namespace {

// A third kind: it hands its input on.
struct EchoConfig {
  int64_t hidden = 0;
  AttentionSizes sizes() const { return {.hidden = hidden}; }
  std::string str() const { return "echo"; }
};
struct EchoSaved {
  Tensor x;
  bool rebuilt = false;
};
class EchoAttention {
 public:
  using Config = EchoConfig;
  using Saved = EchoSaved;
  static constexpr bool RecomputePolicy::* own_piece = &RecomputePolicy::mla_up;  // a piece two kinds have

  EchoAttention(const std::string& /*name*/, const EchoConfig& /*config*/, double /*norm_eps*/, double /*init_std*/) {}
  Tensor forward(Context& ctx, const Tensor& x, const Tensor& /*cos_sin*/, const RecomputePolicy& /*recompute*/,
                 EchoSaved& saved, const KvCache* /*cache*/) const {
    saved.x = x;
    const Tensor y = ctx.scratch().empty_like(x);
    ctx.run(Copy{.y = y, .x = x});
    return y;
  }
  void rebuild(Context& /*ctx*/, const Tensor& /*cos_sin*/, const RecomputePolicy& /*recompute*/,
               EchoSaved& saved) const {
    saved.rebuilt = true;
  }
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& /*cos_sin*/,
                EchoSaved& /*saved*/) const {
    ctx.run(Copy{.y = dx, .x = dy});
  }
  void weight_grad(Context& /*ctx*/, const EchoSaved& /*saved*/) const {}
  void visit(const ParamVisitor& /*visitor*/) {}
};

using Three = AttentionOf<GroupedQueryAttention, LatentAttention, EchoAttention>;

TEST(AttentionKinds, AThirdIsAnEntryOfTheList) {
  TestContext tc(DType::f64);
  Three attention("attention", EchoConfig{.hidden = 3}, 1e-6, 0.02);
  attention.visit([](Param&) { ADD_FAILURE() << "a parameter of another kind"; });
  Three::Saved saved;
  const Tensor x = tc.random({2, 3}, 1), again = tc.random({2, 3}, 1), dy = tc.random({2, 3}, 2);
  EXPECT_TRUE(same(attention.forward(*tc, x, Tensor(), {}, saved), x));
  const auto& own = std::get<EchoSaved>(saved);
  EXPECT_EQ(own.x.raw(), x.raw());
  attention.rebuild(*tc, Tensor(), Tensor(), {}, saved);
  EXPECT_TRUE(own.rebuilt);
  EXPECT_EQ(own.x.raw(), x.raw()) << "an input that was kept stays";
  attention.rebuild(*tc, again, Tensor(), {}, saved);
  EXPECT_EQ(own.x.raw(), again.raw());
  const Tensor dx = tc.empty({2, 3});
  attention.backward(*tc, dx, dy, Tensor(), saved);
  EXPECT_TRUE(same(dx, dy));
  attention.weight_grad(*tc, saved);
}

TEST(AttentionKinds, HaveThePiecesOfTheirKindAndTheBlocks) {
  RecomputePolicy all;
  for (const RecomputePiece& piece : kRecomputePieces) all.*piece.on = true;
  RecomputePolicy grouped = all, latent = all;
  grouped.mla_up = latent.qk_rope = false;
  EXPECT_EQ(Attention::pieces_of(GroupedQueryConfig{}, all), grouped);
  EXPECT_EQ(Attention::pieces_of(LatentConfig{}, all), latent);
  EXPECT_EQ(Three::pieces_of(GroupedQueryConfig{}, all), grouped);
  EXPECT_EQ(Three::pieces_of(EchoConfig{}, all), latent);
  EXPECT_FALSE(Attention::pieces_of(LatentConfig{}, {.qk_rope = true}).any());
  EXPECT_FALSE(Attention::pieces_of(GroupedQueryConfig{}, {}).any());
}

TEST(AttentionKinds, SayTheirSizes) {
  const AttentionSizes grouped =
      sizes_of(GroupedQueryConfig{.hidden = 9, .heads = 4, .kv_heads = 2, .head_dim = 6, .window = 3});
  EXPECT_EQ(grouped.hidden, 9);
  EXPECT_EQ(grouped.rope_dim, 6);
  EXPECT_EQ(grouped.kv_heads, 2);
  EXPECT_EQ(grouped.key_dim, 6);
  EXPECT_EQ(grouped.value_dim, 6);
  EXPECT_EQ(grouped.window, 3);
  const AttentionSizes latent =
      sizes_of(LatentConfig{.hidden = 9, .heads = 4, .nope_dim = 3, .rope_dim = 2, .v_dim = 7});
  EXPECT_EQ(latent.hidden, 9);
  EXPECT_EQ(latent.rope_dim, 2);
  EXPECT_EQ(latent.kv_heads, 4);
  EXPECT_EQ(latent.key_dim, 5);
  EXPECT_EQ(latent.value_dim, 7);
  EXPECT_EQ(latent.window, 0);
}

}  // namespace
}  // namespace sluice::test
