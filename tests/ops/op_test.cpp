// What makes a type an operation: a spec without one of the facts that every operation states does not compile as one.
#include "ops/op.h"

#include <gtest/gtest.h>

#include <set>

#include "ops/all.h"

namespace sluice {
namespace {

struct Complete {
  static constexpr std::string_view name = "complete";
  static constexpr OpKind kind = OpKind::elementwise;
  void check() const {}
  template <class V>
  void visit(V&& v) const {
    v("x", Tensor(), Access::in);
  }
};
struct Nameless : Complete {
  static constexpr int name = 0;
};
struct Kindless {
  static constexpr std::string_view name = "kindless";
  void check() const {}
  template <class V>
  void visit(V&& v) const {
    v("x", Tensor(), Access::in);
  }
};
struct Unchecked : Complete {
  void check() const = delete;
};
struct Invisible : Complete {
  void visit() const {}
};
static_assert(Operation<Complete>);
static_assert(!Operation<Nameless> && !Operation<Kindless> && !Operation<Unchecked> && !Operation<Invisible>);

template <class... Ops>
std::vector<OpId> ids(OpList<Ops...> /*list*/) {
  return {id_of<Ops>()...};
}

TEST(Operations, HaveNamesOfTheirOwn) {
  std::set<std::string_view> names;
  for (const OpId& op : ids(AllOps())) EXPECT_TRUE(names.insert(op.name).second) << op.name;
  EXPECT_FALSE(names.empty());
}

// Plans charge matrix products by what matrix units reach. A product that says it is something else would be priced
// tens of times too high.
TEST(Operations, AreProductsIfTheyMultiplyMatrices) {
  for (const OpId& op : ids(AllOps())) {
    const bool multiplies =
        op.name.find("gemm") != std::string_view::npos || op.name.starts_with("attention") || op.name == HeadLoss::name;
    EXPECT_EQ(is_product(op.kind), multiplies) << op.name;
    EXPECT_EQ(part_of(op.kind).has_value(), multiplies || op.kind == OpKind::norm) << op.name;
  }
}

}  // namespace
}  // namespace sluice
