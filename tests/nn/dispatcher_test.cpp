// The dispatcher against its plain reference, bit for bit, over the cross product of ranks, experts, top-k, routing,
// storage type, backend and communicator mode; ranks hold different numbers of tokens, one of them none.
#include "nn/dispatcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <numeric>

#include "base/philox.h"
#include "comm/inproc/inproc.h"
#include "comm/meta/meta.h"
#include "device/meta/meta_backend.h"
#include "support/compare.h"
#include "support/reference_dispatch.h"
#include "support/test_context.h"

namespace sluice::test {
namespace {

constexpr int64_t kHidden = 3;

enum class Routing { balanced, random, skewed, one_set, last_rank, even_experts, no_tokens };
constexpr Routing kRoutings[] = {Routing::balanced,  Routing::random,       Routing::skewed,   Routing::one_set,
                                 Routing::last_rank, Routing::even_experts, Routing::no_tokens};
const char* const kRoutingNames[] = {"balanced",  "random",       "skewed",   "one set of experts",
                                     "last rank", "even experts", "no tokens"};
constexpr DType kDtypes[] = {DType::f64, DType::f32, DType::bf16};
constexpr int64_t kTopKs[] = {1, 2, 3};
constexpr int64_t kExpertsPerRank[] = {1, 3};

int64_t tokens_of(int rank, Routing routing) {
  constexpr int64_t kTokens[] = {5, 0, 7, 1, 4, 9, 3, 6};
  return routing == Routing::no_tokens ? 0 : kTokens[rank];
}

// The experts a routing leaves to the token to choose from.
std::vector<int32_t> candidates(Routing routing, bool heavy, int64_t num_experts, int64_t per_rank, int64_t top_k) {
  std::vector<int32_t> all(static_cast<size_t>(num_experts));
  std::iota(all.begin(), all.end(), 0);
  std::vector<int32_t> some = all;
  if (routing == Routing::one_set || (routing == Routing::skewed && heavy)) some.resize(static_cast<size_t>(top_k));
  if (routing == Routing::last_rank) some.erase(some.begin(), some.end() - std::max(per_rank, top_k));
  if (routing == Routing::even_experts) std::erase_if(some, [](int32_t e) { return e % 2 == 1; });
  return static_cast<int64_t>(some.size()) < top_k ? all : some;
}

// [T, K] for one rank; a token's experts are distinct.
std::vector<int32_t> route(Routing routing, int rank, int64_t num_experts, int64_t per_rank, int64_t top_k) {
  const Philox random(static_cast<uint64_t>(rank) + 77);
  std::vector<int32_t> experts;
  for (int64_t t = 0; t < tokens_of(rank, routing); ++t) {
    const auto stream = static_cast<uint64_t>(t);
    std::vector<int32_t> pool = candidates(routing, t % 3 != 0, num_experts, per_rank, top_k);
    for (int64_t j = 0; j < top_k; ++j) {
      const int64_t next = routing == Routing::balanced
                               ? (j == 0 ? (t + rank) * top_k % num_experts : 0)
                               : static_cast<int64_t>(random.below(pool.size(), static_cast<uint64_t>(j), stream));
      if (routing == Routing::balanced && j == 0) std::rotate(pool.begin(), pool.begin() + next, pool.end());
      const auto chosen = pool.begin() + (routing == Routing::balanced ? 0 : next);
      experts.push_back(*chosen);
      pool.erase(chosen);
    }
  }
  return experts;
}

// Random numbers that the storage type holds.
std::vector<double> stored(int64_t count, uint64_t seed, DType dtype) {
  std::vector<double> values = random_values(count, seed);
  dispatch_float(dtype, [&]<class T>(T) {
    for (double& x : values) x = static_cast<double>(static_cast<T>(x));
  });
  return values;
}

// What all ranks put in, and the reference that has seen it.
struct Scenario {
  std::string name;
  DType dtype = DType::f64;
  int64_t num_experts = 0;
  int64_t top_k = 0;
  std::vector<std::vector<int32_t>> experts;
  std::vector<Rows> x, weights, y, add;
  std::vector<std::vector<double>> drow;
  ReferenceDispatch reference;
};

Scenario make_scenario(int ranks, int64_t per_rank, int64_t top_k, Routing routing, DType dtype) {
  const int64_t num_experts = ranks * per_rank;
  std::vector<std::vector<int32_t>> experts;
  for (int r = 0; r < ranks; ++r) experts.push_back(route(routing, r, num_experts, per_rank, top_k));
  Scenario s{.name = std::string(kRoutingNames[static_cast<size_t>(routing)]) + ", " + std::to_string(per_rank) +
                     " experts a rank, top " + std::to_string(top_k) + ", " + std::string(name_of(dtype)),
             .dtype = dtype,
             .num_experts = num_experts,
             .top_k = top_k,
             .experts = experts,
             .reference = ReferenceDispatch(num_experts, top_k, experts)};
  for (int r = 0; r < ranks; ++r) {
    const int64_t t = tokens_of(r, routing);
    const auto m = static_cast<int64_t>(s.reference.rows(r).size());
    const auto seed = static_cast<uint64_t>(r) * 10;
    s.x.push_back({kHidden, stored(t * kHidden, seed + 1, dtype)});
    s.weights.push_back({top_k, stored(t * top_k, seed + 2, accumulator_of(dtype))});
    s.y.push_back({kHidden, stored(m * kHidden, seed + 3, dtype)});
    s.add.push_back({kHidden, stored(t * kHidden, seed + 4, dtype)});
    s.drow.push_back(stored(m, seed + 5, accumulator_of(dtype)));
  }
  return s;
}

bool same_bits(const std::vector<double>& a, const std::vector<double>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](double x, double y) { return std::bit_cast<uint64_t>(x) == std::bit_cast<uint64_t>(y); });
}

Tensor put(Context& ctx, Shape shape, DType dtype, const std::vector<double>& values) {
  const Tensor t = ctx.records().empty(shape, dtype);
  assign(t, values);
  return t;
}

// One rank's side of a scenario, every result against the reference.
void run_scenario(Context& ctx, Communicator& ep, const Scenario& s) {
  const int rank = ep.rank();
  const auto r = static_cast<size_t>(rank);
  const ReferenceDispatch& expected = s.reference;
  const int64_t t = s.x[r].count(), m = static_cast<int64_t>(expected.rows(rank).size());
  const auto exact = [&](const char* what, const std::vector<double>& got, const std::vector<double>& wanted) {
    EXPECT_TRUE(same_bits(got, wanted)) << what << " of rank " << rank << ": " << s.name;
  };
  Dispatcher dispatcher(ep, s.num_experts);
  RoutingRecord record;
  record.experts = put(ctx, {t, s.top_k}, DType::i32, {s.experts[r].begin(), s.experts[r].end()});
  record.weights = put(ctx, {t, s.top_k}, ctx.accumulator(), s.weights[r].values);
  dispatcher.plan(ctx, record);
  EXPECT_EQ(record.expert_rows, m) << s.name;
  exact("offsets", values_of(record.offsets), expected.offsets(rank));
  exact("row_token", values_of(record.row_token), expected.row_token(rank));
  exact("row_slot", values_of(record.row_slot), expected.row_slot(rank));
  exact("slot_row", values_of(record.slot_row), expected.slot_row(rank));
  exact("row_weight", values_of(record.row_weight), expected.row_weights(rank, s.weights));
  if (ep.size() > 1) {
    EXPECT_EQ(record.sent, expected.sent(rank)) << s.name;
    EXPECT_EQ(record.received, expected.received(rank)) << s.name;
    exact("send_token", values_of(record.send_token), expected.send_token(rank));
    exact("send_row", values_of(record.send_row), expected.send_row(rank));
  }

  auto there = dispatcher.begin_to_experts(ctx, put(ctx, {t, kHidden}, s.dtype, s.x[r].values), record);
  const Tensor rows = dispatcher.end_to_experts(ctx, there, record, ctx.activations());
  exact("to_experts", values_of(rows), expected.to_experts(rank, s.x).values);

  const Tensor y = put(ctx, {m, kHidden}, s.dtype, s.y[r].values);
  for (const bool with_add : {false, true}) {
    const Rows* add = with_add ? &s.add[r] : nullptr;
    const Tensor out = ctx.activations().empty({t, kHidden}, s.dtype);
    poison(out);
    auto back = dispatcher.begin_from_experts(ctx, y, record);
    dispatcher.end_from_experts(ctx, back, record, out, add ? put(ctx, out.shape(), s.dtype, add->values) : Tensor());
    const std::vector<double> got = values_of(out);
    exact(with_add ? "from_experts with add" : "from_experts", got,
          expected.from_experts(rank, s.y, add, s.dtype).values);
    if (got.empty()) continue;
    // Partial sums may be larger than what is left of them.
    Tolerance allowed = tolerance(s.dtype, s.top_k);
    allowed.global *= static_cast<double>(s.top_k + 1);
    EXPECT_TRUE(close(got, expected.from_experts_by_slot(rank, s.y, add).values, allowed, std::ssize(got))) << s.name;
  }

  const Tensor drow = put(ctx, {m}, ctx.accumulator(), s.drow[r]);
  const Tensor dweights = dispatcher.weight_gradients(ctx, drow, record);
  EXPECT_EQ(dweights.shape(), (Shape{t, s.top_k})) << s.name;
  exact("weight_gradients", values_of(dweights), expected.weight_gradients(rank, s.drow).values);
}

class DispatcherModule : public testing::TestWithParam<std::tuple<int, bool>> {};

TEST_P(DispatcherModule, EqualsThePlainReferenceBitForBit) {
  const auto [ranks, async] = GetParam();
  std::vector<Scenario> scenarios;
  for (const DType dtype : kDtypes) {
    for (const int64_t per_rank : kExpertsPerRank) {
      for (const int64_t top_k : kTopKs) {
        if (top_k > ranks * per_rank) continue;
        for (const Routing routing : kRoutings) {
          scenarios.push_back(make_scenario(ranks, per_rank, top_k, routing, dtype));
        }
      }
    }
  }
  const std::vector<BackendCase> tested{ref_backend(), cpu_backend(1)};
  std::atomic<size_t> cases = 0;
  run_ranks(ranks, {.timeout_s = 120, .async = async}, [&](Communicator& world) {
    for (const BackendCase& backend : tested) {
      for (const DType dtype : kDtypes) {
        TestContext tc(dtype, backend);
        for (const Scenario& scenario : scenarios) {
          if (scenario.dtype != dtype) continue;
          run_scenario(*tc, world, scenario);
          world.barrier(tc->compute(), "end of a scenario");
          tc.reset();
          ++cases;
        }
      }
    }
  });
  const size_t top_ks = ranks == 1 ? 4 : ranks == 2 ? 5 : 6;  // (experts a rank, K) that are possible
  EXPECT_EQ(cases, top_ks * std::size(kRoutings) * std::size(kDtypes) * tested.size() * static_cast<size_t>(ranks));
}

std::string name_of(const testing::TestParamInfo<std::tuple<int, bool>>& instance) {
  const auto [ranks, async] = instance.param;
  return "ranks" + std::to_string(ranks) + (async ? "_async" : "_inline");
}
INSTANTIATE_TEST_SUITE_P(Ranks, DispatcherModule, testing::Combine(testing::Values(1, 2, 4, 8), testing::Bool()),
                         name_of);

TEST(Dispatcher, OnMetaWantsAForecastOfWhatIsExchanged) {
  MetaBackend backend({});
  MetaMemory memory;
  Arena arena(memory, MemoryKind::scratch, "all");
  Context ctx(backend, DType::f32);
  ctx.bind({&arena, &arena, &arena, &arena});
  MetaWorld world({}, 2);
  const auto ep = world.communicator(0);
  const Dispatcher dispatcher(*ep, 4);
  RoutingRecord record;
  record.experts = arena.empty({3, 2}, DType::i32);
  record.weights = arena.empty({3, 2}, DType::f32);
  EXPECT_THROW(dispatcher.plan(ctx, record), Error);
  dispatcher.plan(ctx, record, [](int source) {
    return source == 0 ? std::vector<int32_t>{1, 2, 3, 4} : std::vector<int32_t>{2, 3, 1, 1};
  });
  EXPECT_EQ(record.sent, (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(record.received, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(record.expert_rows, 5);
}

}  // namespace
}  // namespace sluice::test
