#include <fmt/core.h>

#include <algorithm>

#include "device/cpu_cases.h"

namespace sluice::test {

Tensor indices(TestContext& tc, Shape shape, uint64_t seed, int64_t bound, double share_of_holes) {
  const Tensor t = tc.empty(shape, DType::i32);
  randomize_below(t, seed, bound);
  auto* data = t.data<int32_t>();
  const auto period = share_of_holes > 0 ? static_cast<int64_t>(1 / share_of_holes) : t.numel() + 1;
  for (int64_t i = period - 1; i < t.numel(); i += period) data[i] = -1;
  return t;
}

namespace {

CpuCase norm(int64_t rows, int64_t dim) {
  return {fmt::format("rmsnorm_{}_{}", rows, dim), std::max(rows, dim), [=](TestContext& tc) {
            const Tensor x = strided_random(tc, {rows, dim}, 1), add = strided_random(tc, {rows, dim}, 2);
            const Tensor gamma = tc.random({dim}, 3), sum = tc.empty({rows, dim}),
                         y = tc.strided({rows, dim}, tc.dtype());
            const Tensor rstd = tc.empty({rows}, tc.accumulator());
            tc->run(ResidualRmsNormForward{
                .sum = sum, .y = y, .rstd = rstd, .x = x, .add = add, .gamma = gamma, .eps = 1e-5});
            const Tensor y2 = tc.empty({rows, dim}), rstd2 = tc.empty({rows}, tc.accumulator());
            tc->run(RmsNormForward{.y = y2, .rstd = rstd2, .x = x, .gamma = gamma, .eps = 1e-5});
            const Tensor dy = tc.random({rows, dim}, 4), dgamma = tc.random_as(tc.accumulator(), {dim}, 5);
            const Tensor dx = tc.empty({rows, dim});
            tc->run(RmsNormBackward{
                .dx = dx, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd2, .gamma = gamma, .residual = add});
            tc->run(RmsNormBackward{
                .dx = dy, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd2, .gamma = gamma, .residual = {}});
            return std::vector{sum, y, rstd, y2, rstd2, dx, dy, dgamma};
          }};
}

CpuCase norm_per_head() {
  return {"rmsnorm_per_head", 1100, [](TestContext& tc) {
            const Tensor wide = tc.random({367, 3 * 20 + 8}, 1), dwide = tc.random({367, 3 * 20 + 8}, 2);
            const Tensor x = wide.cols(8, 60).split_cols(3, 20), dy = dwide.cols(8, 60).split_cols(3, 20);
            const Tensor gamma = tc.random({20}, 3);
            const Tensor dgamma = tc.random_as(tc.accumulator(), {20}, 4);
            const Tensor y = tc.empty({367, 3, 20}), rstd = tc.empty({367, 3}, tc.accumulator());
            tc->run(RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6});
            tc->run(RmsNormBackward{
                .dx = dy, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma, .residual = {}});
            return std::vector{y, rstd, dwide, dgamma};
          }};
}

CpuCase rope(int64_t dim) {
  return {fmt::format("rope_{}", dim), 1, [=](TestContext& tc) {
            const Tensor table = tc.empty({70, dim}, tc.accumulator());
            tc->run(RopeTable{.cos_sin = table, .theta = 1e4});
            const Tensor x = tc.random({140, 3 * dim + 5}, 1);
            tc->run(Rope{.x = x.cols(2, 3 * dim).split_cols(3, dim), .cos_sin = table, .inverse = false});
            const Tensor y = tc.random({140, 3, dim}, 2);
            tc->run(Rope{.x = y, .cos_sin = table, .inverse = true});
            return std::vector{x, y};
          }};
}

CpuCase swiglu(int64_t dim, bool weighted, const SwigluForm& form = {}) {
  const auto name = fmt::format("swiglu_{}{}{}", dim, weighted ? "_weighted" : "", form.limit != 0 ? "_clamped" : "");
  return {name, dim, [=](TestContext& tc) {
            const int64_t rows = 150;
            const Tensor gate_up = strided_random(tc, {rows, 2 * dim}, 1, 4);
            const Tensor weight = weighted ? tc.random_as(tc.accumulator(), {rows}, 2) : Tensor();
            const Tensor h = tc.strided({rows, dim}, tc.dtype()), dh = strided_random(tc, {rows, dim}, 3);
            const Tensor dweight = weighted ? tc.empty({rows}, tc.accumulator()) : Tensor();
            tc->run(SwigluForward{.h = h, .gate_up = gate_up, .weight = weight, .form = form});
            tc->run(SwigluBackward{
                .dgate_up = gate_up, .dweight = dweight, .dh = dh, .gate_up = gate_up, .weight = weight, .form = form});
            return weighted ? std::vector{h, gate_up, dweight} : std::vector{h, gate_up};
          }};
}

CpuCase moves(int64_t dim) {
  return {fmt::format("gather_and_sum_{}", dim), 1, [=](TestContext& tc) {
            const Tensor x = strided_random(tc, {90, dim}, 1), y = tc.strided({200, dim}, tc.dtype());
            tc->run(GatherRows{.y = y, .x = x, .index = indices(tc, {200}, 2, 90, 0.2)});
            const Tensor index = indices(tc, {90, 4}, 3, 200, 0.15);
            const Tensor sum = tc.empty({90, dim}), with_add = strided_random(tc, {90, dim}, 4);
            tc->run(SumRows{.y = sum, .x = y, .index = index, .add = {}});
            tc->run(SumRows{.y = with_add, .x = y, .index = index, .add = with_add});
            return std::vector{y, sum, with_add};
          }};
}

CpuCase embedding() {
  return {"embedding", 20, [](TestContext& tc) {
            const Tensor tokens = indices(tc, {300}, 1, 23);
            const Tensor w = tc.random({23, 150}, 2), y = tc.empty({300, 150});
            const Tensor dw = tc.random_as(tc.accumulator(), {23, 150}, 3);
            tc->run(EmbeddingForward{.y = y, .w = w, .tokens = tokens});
            tc->run(EmbeddingBackward{.dw = dw, .dy = tc.random({300, 150}, 4), .tokens = tokens});
            return std::vector{y, dw};
          }};
}

// How a bf16 weight becomes what it is stored as.
enum class Rounding : uint8_t { nearest, random, master };
CpuCase adamw(DType moments, Rounding rounding = Rounding::nearest) {
  const auto* kind = rounding == Rounding::random ? "_random" : rounding == Rounding::master ? "_master" : "";
  return {fmt::format("adamw_{}{}", name_of(moments), kind), 1, [=](TestContext& tc) {
            const int64_t n = 20011;
            const Tensor state = tc.of({kStepSlots}, DType::f64, {1e-2, 0.271, 0.002997, 0.8, 1, 1, 0, 0.1});
            const Tensor w = tc.random({n}, 1), m = tc.random_as(moments, {n}, 2);
            const Tensor v = tc.random_as(moments, {n}, 3, 0.1, 0.5);
            const Tensor g = tc.random_as(tc.accumulator(), {n}, 4);
            const bool bf16 = tc.dtype() == DType::bf16;
            const Tensor master = bf16 && rounding == Rounding::master ? tc.random_as(DType::f32, {n}, 5) : Tensor();
            tc->run(AdamW{.w = w,
                          .master = master,
                          .m = m,
                          .v = v,
                          .g = g,
                          .state = state,
                          .beta2 = 0.95,
                          .stochastic_rounding = bf16 && rounding == Rounding::random,
                          .key = 99,
                          .first = 12347});
            return master ? std::vector{w, m, v, master} : std::vector{w, m, v};
          }};
}

CpuCase streams() {
  return {"fill_copy_add_sum", 100000, [](TestContext& tc) {
            const Tensor normal = tc.empty({9001}), ints = tc.empty({77}, DType::i32);
            tc->run(FillNormal{.x = normal, .std = 0.02, .key = 99, .first = 12345});
            tc->run(Fill{.x = ints, .value = 7});
            const Tensor gaps = tc.strided({33, 20}, tc.dtype());
            tc->run(Fill{.x = gaps, .value = 0.3});
            const Tensor x = strided_random(tc, {33, 20}, 1), y = strided_random(tc, {33, 20}, 2);
            const Tensor narrow = tc.empty({33, 20}, DType::bf16), wide = tc.strided({33, 20}, DType::f32);
            tc->run(Copy{.y = narrow, .x = x});
            tc->run(Copy{.y = wide, .x = x});
            tc->run(Add{.y = y, .x = x});
            const Tensor long_x = tc.random({150001}, 3), long_y = tc.random({150001}, 4);
            tc->run(Add{.y = long_y, .x = long_x});
            const Tensor sums = tc.of({1}, DType::f64, {-1}), squares = tc.of({1}, DType::f64, {2});
            tc->run(Sum{.sum = sums, .x = long_x, .squares = false});
            tc->run(Sum{.sum = squares, .x = long_x, .squares = true});
            return std::vector{normal, ints, gaps, narrow, wide, y, long_y, sums, squares};
          }};
}

}  // namespace

std::vector<CpuCase> row_cases() {
  std::vector<CpuCase> all;
  for (const int64_t dim : {7, 33, 100, 129}) all.push_back(norm(dim == 100 ? 600 : 3, dim));
  all.push_back(norm_per_head());
  for (const int64_t dim : {6, 16, 64}) all.push_back(rope(dim));
  for (const int64_t dim : {5, 64, 100}) {
    all.push_back(swiglu(dim, dim != 64));
    all.push_back(swiglu(dim, dim != 64, {.limit = 3, .alpha = 1.702}));
  }
  for (const int64_t dim : {1, 50, 128}) all.push_back(moves(dim));
  all.push_back(embedding());
  for (const DType moments : {DType::f32, DType::bf16}) {
    for (const Rounding rounding : {Rounding::nearest, Rounding::random, Rounding::master}) {
      all.push_back(adamw(moments, rounding));
    }
  }
  all.push_back(streams());
  return all;
}

}  // namespace sluice::test
