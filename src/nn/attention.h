// The attention of a block: one of several kinds, as one value. A kind is a class in a file of its own and an entry in
// the list at the end of this file. The class has forward, rebuild, backward, weight_grad and visit as below, and
// - Config: what it is made of, with AttentionSizes sizes() const and, in words, std::string str() const;
// - Saved: what it keeps from forward to backward and weight gradient, its input as `x`;
// - own_piece: the piece of a RecomputePolicy that is about this kind alone.
#pragma once

#include <string>
#include <variant>

#include "nn/grouped_query_attention.h"
#include "nn/latent_attention.h"

namespace sluice {

template <class... Kinds>
class AttentionOf {
 public:
  using Config = std::variant<typename Kinds::Config...>;
  using Saved = std::variant<typename Kinds::Saved...>;

  // `norm_eps` is that of the block's norms.
  AttentionOf(const std::string& name, const Config& config, double norm_eps, double init_std)
      : kind_(make(name, config, norm_eps, init_std)) {}

  // x [T, D], cos_sin [S, rope_dim]; returns [T, D] in scratch. x must live as Saved::x says, or be rebuilt. With a
  // cache x are the next tokens of its sequence and cos_sin [T, rope_dim] is of their positions; no backward then.
  Tensor forward(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute, Saved& saved,
                 const KvCache* cache = nullptr) const {
    return std::visit(
        [&]<class Kind>(const Kind& kind) {
          using Own = typename Kind::Saved;
          if (!std::holds_alternative<Own>(saved)) saved.template emplace<Own>();
          return kind.forward(ctx, x, cos_sin, recompute, std::get<Own>(saved), cache);
        },
        kind_);
  }
  // Makes again what forward did not keep; `x`, where it is defined, takes the place of the input that was not kept.
  void rebuild(Context& ctx, const Tensor& x, const Tensor& cos_sin, const RecomputePolicy& recompute,
               Saved& saved) const {
    visit_with(saved, [&](const auto& kind, auto& own) {
      if (x.defined()) own.x = x;
      kind.rebuild(ctx, cos_sin, recompute, own);
    });
  }
  // dx = [T, D]; dy must live until weight_grad.
  void backward(Context& ctx, const Tensor& dx, const Tensor& dy, const Tensor& cos_sin, Saved& saved) const {
    visit_with(saved, [&](const auto& kind, auto& own) { kind.backward(ctx, dx, dy, cos_sin, own); });
  }
  void weight_grad(Context& ctx, const Saved& saved) const {
    visit_with(saved, [&](const auto& kind, const auto& own) { kind.weight_grad(ctx, own); });
  }
  void visit(const ParamVisitor& visitor) {
    std::visit([&](auto& kind) { kind.visit(visitor); }, kind_);
  }

  // The pieces of `policy` that a block with such an attention has.
  static RecomputePolicy pieces_of(const Config& config, const RecomputePolicy& policy) {
    RecomputePolicy has = policy;
    ((has.*Kinds::own_piece = false), ...);
    const auto keep = [&]<class Kind>(std::type_identity<Kind>) {
      if (std::holds_alternative<typename Kind::Config>(config)) has.*Kind::own_piece = policy.*Kind::own_piece;
    };
    (keep(std::type_identity<Kinds>()), ...);
    return has;
  }

 private:
  using Kind = std::variant<Kinds...>;

  static Kind make(const std::string& name, const Config& config, double norm_eps, double init_std) {
    return std::visit(
        [&]<class Own>(const Own& own) {
          // The kind whose configuration this is.
          using Chosen = std::variant_alternative_t<index_of<Own>, Kind>;
          return Kind(std::in_place_type<Chosen>, name, own, norm_eps, init_std);
        },
        config);
  }
  template <class Own>
  static constexpr size_t index_of = [] {
    size_t index = 0;
    const bool found = ((std::is_same_v<typename Kinds::Config, Own> || (++index, false)) || ...);
    return found ? index : sizeof...(Kinds);
  }();
  template <class AnySaved, class F>
  void visit_with(AnySaved& saved, F&& f) const {
    std::visit([&]<class Own>(const Own& kind) { f(kind, std::get<typename Own::Saved>(saved)); }, kind_);
  }

  Kind kind_;
};

using Attention = AttentionOf<GroupedQueryAttention, LatentAttention>;
using AttentionConfig = Attention::Config;
using AttentionSaved = Attention::Saved;

inline AttentionSizes sizes_of(const AttentionConfig& config) {
  return std::visit([](const auto& own) { return own.sizes(); }, config);
}

}  // namespace sluice
