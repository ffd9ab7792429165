// Times every operation of a training step of the benchmark model (hidden 512, 8 layers, 8 heads / 2 of 64, 16 experts,
// top-4 of width 256, vocabulary 8192, 8 sequences of 512, in f32 or bf16) against its own roofline, and adds them up
// to a step.
#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/philox.h"
#include "bench_ops.h"
#include "device/context.h"
#include "device/cpu/cpu_backend.h"
#include "device/cpu/peak.h"
#include "device/roof.h"

namespace sluice {
namespace {

// T tokens, S sequence, D hidden, H heads, G key/value heads, C head dim, E experts, K slots, F expert width,
// V vocabulary, M expert rows.
constexpr int64_t S = 512, T = 8 * S, D = 512, H = 8, G = 2, C = 64, E = 16, K = 4, F = 256, V = 8192, M = T * K;
constexpr int kLayers = 8;
constexpr int64_t kLayerParams = E * 3 * F * D + (H + 2 * G) * C * D + H * C * D + E * D + 2 * D + 2 * C;
constexpr int64_t kParams = kLayers * kLayerParams + 2 * V * D + D;
constexpr double kModelFlops =
    6.0 * T * (kLayers * (D * (H + 2 * G) * C + H * C * D + S * H * C + 3.0 * D * F * K) + double{D} * V);

struct Measured {
  std::string name;
  std::string what;
  int count = 0;  // in a step
  double seconds = 0;
  Cost cost;
};

class Bench {
 public:
  Bench(DType dtype, int threads, std::string only, bool shared)
      : pool_(threads), context_(backend_, dtype), only_(std::move(only)), shared_(shared) {
    context_.bind({.activations = &arena_, .deferred = &arena_, .records = &arena_, .scratch = &scratch_});
  }

  Pool& pool() { return pool_; }
  int threads() const { return pool_.threads(); }
  bool shared() const { return shared_; }
  Context& context() { return context_; }
  const std::vector<Measured>& results() const { return results_; }

  Tensor empty(Shape shape, DType dtype) { return arena_.empty(shape, dtype); }
  // Of the storage type: parameters, activations and their gradients.
  Tensor empty(Shape shape) { return empty(shape, context_.dtype()); }
  Tensor random(Shape shape, double std = 1) { return random(shape, context_.dtype(), std); }
  // Statistics, and gradients of parameters.
  Tensor wide(Shape shape) { return empty(shape, DType::f32); }
  Tensor wide_random(Shape shape, double std = 1) { return random(shape, DType::f32, std); }
  Tensor random(Shape shape, DType dtype, double std) {
    const Tensor t = empty(shape, dtype);
    context_.run(FillNormal{.x = t, .std = std, .key = ++seed_});
    return t;
  }
  Tensor ints(Shape shape, int64_t bound) {
    const Tensor t = empty(shape, DType::i32);
    const Philox random(++seed_);
    for (int64_t i = 0; i < t.numel(); ++i) {
      t.data<int32_t>()[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(bound), static_cast<uint64_t>(i)));
    }
    return t;
  }

  // The median of enough runs; `count` is how often a step does this.
  template <class O>
  void time(const std::string& what, int count, const O& op) {
    if (!only_.empty() && std::string(O::name).find(only_) == std::string::npos) return;
    constexpr double kLong = 0.4;
    constexpr size_t kFew = 5;
    context_.run(op);
    std::vector<double> seconds;
    const Stopwatch total;
    while (seconds.size() < kFew || (total.seconds() < kLong && seconds.size() < 200)) {
      const double start = now();
      context_.run(op);
      seconds.push_back(now() - start);
    }
    const auto middle = seconds.begin() + (shared_ ? 0 : static_cast<std::ptrdiff_t>(seconds.size() / 2));
    std::nth_element(seconds.begin(), middle, seconds.end());
    results_.push_back({std::string(O::name), what, count, *middle, cost_of(op)});
  }

 private:
  double now() const {
    if (!shared_) return steady_seconds();
    return static_cast<double>(std::clock()) / (double{CLOCKS_PER_SEC} * pool_.threads());
  }

  Pool pool_;
  CpuBackend backend_{pool_};
  Context context_;
  HostMemory memory_;
  Arena arena_{memory_, MemoryKind::activations, "bench"};
  Arena scratch_{memory_, MemoryKind::scratch, "scratch"};
  uint64_t seed_ = 0;
  std::string only_;
  bool shared_;
  std::vector<Measured> results_;
};

void attention_ops(Bench& b) {
  constexpr int L = kLayers;
  const Tensor x = b.random({T, D}), gamma = b.random({D}), y = b.empty({T, D}), rstd = b.wide({T});
  const Tensor dgamma = b.wide_random({D}), dx = b.empty({T, D}), dy = b.random({T, D});
  b.time("512", 1, RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = 1e-6});
  b.time("512", 2 * L,
         ResidualRmsNormForward{.sum = dx, .y = y, .rstd = rstd, .x = x, .add = dy, .gamma = gamma, .eps = 1e-6});
  b.time("512", 2 * L + 1,
         RmsNormBackward{.dx = dx, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma, .residual = y});

  constexpr int64_t Q = H * C, N = (H + 2 * G) * C;
  const Tensor w = b.random({N, D}, 0.02), qkv = b.empty({T, N}), dw = b.wide_random({N, D});
  b.time("qkv", L, Gemm{.c = qkv, .a = x, .b = w, .trans_b = true});
  b.time("qkv input gradient", L, Gemm{.c = dx, .a = qkv, .b = w});
  b.time("qkv weight gradient", L, Gemm{.c = dw, .a = qkv, .b = x, .trans_a = true, .accumulate = true});
  const Tensor wo = w.rows(0, D), dwo = dw.rows(0, D);
  b.time("out", L, Gemm{.c = y, .a = x, .b = wo, .trans_b = true});
  b.time("out input gradient", L, Gemm{.c = dx, .a = x, .b = wo});
  b.time("out weight gradient", L, Gemm{.c = dwo, .a = dy, .b = x, .trans_a = true, .accumulate = true});

  const Tensor q = b.random({T, H, C}), k = b.random({T, G, C}), v = qkv.cols(Q + G * C, G * C).split_cols(G, C);
  const Tensor qr = b.wide({T, H}), kr = b.wide({T, G}), head_gamma = b.random({C}), dhead = b.wide_random({C});
  const Tensor raw_q = qkv.cols(0, Q).split_cols(H, C), raw_k = qkv.cols(Q, G * C).split_cols(G, C);
  b.time("q heads", L, RmsNormForward{.y = q, .rstd = qr, .x = raw_q, .gamma = head_gamma, .eps = 1e-6});
  b.time("k heads", L, RmsNormForward{.y = k, .rstd = kr, .x = raw_k, .gamma = head_gamma, .eps = 1e-6});
  const Tensor table = b.wide({S, C});
  b.context().run(RopeTable{.cos_sin = table, .theta = 1e6});
  b.time("q", 2 * L, Rope{.x = q, .cos_sin = table});
  b.time("k", 2 * L, Rope{.x = k, .cos_sin = table});
  const Tensor o = b.empty({T, H, C}), lse = b.wide({T, H}), d_o = b.random({T, H, C});
  const AttentionSpec spec{.seq_len = S, .scale = 0.125};
  b.time("", L, AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
  const Tensor dq = b.empty({T, H, C}), dk = b.empty({T, G, C}), dv = b.empty({T, G, C});
  b.time("", L,
         AttentionBackward{
             .dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec});
  b.time("q heads", L,
         RmsNormBackward{
             .dx = dq, .dgamma = dhead, .dy = d_o, .x = raw_q, .rstd = qr, .gamma = head_gamma, .residual = {}});
  b.time("k heads", L,
         RmsNormBackward{
             .dx = dk, .dgamma = dhead, .dy = dv, .x = raw_k, .rstd = kr, .gamma = head_gamma, .residual = {}});
}

void moe_ops(Bench& b) {
  constexpr int L = kLayers;
  const Tensor x = b.random({T, D}), router = b.random({E, D}, 0.02), logits = b.wide({T, E});
  const Tensor experts = b.empty({T, K}, DType::i32), weights = b.wide({T, K}), probs = b.wide({T, E});
  const Tensor dx = b.random({T, D}), drouter = b.wide_random({E, D});
  b.context().run(Gemm{.c = logits, .a = x, .b = router, .trans_b = true});
  b.context().run(SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = logits});
  b.time("router", L, Gemm{.c = logits, .a = x, .b = router, .trans_b = true});
  b.time("router input gradient", L, Gemm{.c = dx, .a = logits, .b = router, .accumulate = true});
  b.time("router weight gradient", L, Gemm{.c = drouter, .a = logits, .b = x, .trans_a = true, .accumulate = true});
  b.context().run(Gemm{.c = logits, .a = x, .b = router, .trans_b = true});
  b.time("", L, SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = logits});
  b.time("", L,
         SoftmaxTopKBackward{
             .dlogits = logits, .dweights = weights, .experts = experts, .weights = weights, .probs = probs});

  const Tensor offsets = b.empty({E + 1}, DType::i32), row_token = b.empty({M}, DType::i32);
  const Tensor row_slot = b.empty({M}, DType::i32), slot_row = b.empty({T, K}, DType::i32);
  const ExpertSort sort{
      .offsets = offsets, .row_token = row_token, .row_slot = row_slot, .slot_row = slot_row, .experts = experts};
  b.context().run(sort);
  b.time("", L, sort);
  const Tensor rows = b.random({M, D}), row_weight = b.wide({M, 1});
  b.time("tokens to experts", 2 * L, GatherRows{.y = rows, .x = x, .index = row_token});
  b.time("weights", 2 * L, GatherRows{.y = row_weight, .x = weights.view({M, 1}), .index = row_slot});
  b.time("experts to tokens", 2 * L, SumRows{.y = dx, .x = rows, .index = slot_row, .add = {}});

  const Tensor w1 = b.random({E, 2 * F, D}, 0.02), w2 = b.random({E, D, F}, 0.02);
  const Tensor gate_up = b.random({M, 2 * F}), h = b.random({M, F}), y = b.empty({M, D});
  b.time("gate_up", L, GroupedGemm{.y = gate_up, .x = rows, .w = w1, .offsets = offsets, .trans_w = true});
  b.time("down", L, GroupedGemm{.y = y, .x = h, .w = w2, .offsets = offsets, .trans_w = true});
  b.time("down input gradient", L, GroupedGemm{.y = h, .x = rows, .w = w2, .offsets = offsets});
  b.time("gate_up input gradient", L, GroupedGemm{.y = y, .x = gate_up, .w = w1, .offsets = offsets});
  const Tensor dw1 = b.wide_random({E, 2 * F, D}), dw2 = b.wide_random({E, D, F});
  b.time("gate_up", L, GroupedGemmWeight{.dw = dw1, .dy = gate_up, .x = rows, .offsets = offsets});
  b.time("down", L, GroupedGemmWeight{.dw = dw2, .dy = rows, .x = h, .offsets = offsets});
  const Tensor weight = row_weight.view({M}), dweight = b.wide({M}), gates = b.random({M, 2 * F});
  b.time("", L, SwigluForward{.h = h, .gate_up = gates, .weight = weight});
  b.time("", L, SwigluBackward{.dgate_up = gate_up, .dweight = dweight, .dh = h, .gate_up = gates, .weight = weight});
}

void model_ops(Bench& b) {
  const Tensor tokens = b.ints({T}, V), table = b.random({V, D}, 0.02), x = b.random({T, D}),
               dw = b.wide_random({V, D});
  b.time("", 1, EmbeddingForward{.y = x, .w = table, .tokens = tokens});
  b.time("", 1, EmbeddingBackward{.dw = dw, .dy = x, .tokens = tokens});
  const Tensor loss = b.wide({T}), dx = b.empty({T, D}), scale = b.empty({1}, DType::f64);
  scale.data<double>()[0] = 1.0 / T;
  b.time("", 1, HeadLoss{.loss = loss, .dx = dx, .dw = dw, .x = x, .w = table, .labels = tokens, .grad_scale = scale});
  // Moments as wide as the weights, as torch has them.
  const Tensor w = b.random({kParams}, 0.02), m = b.random({kParams}), g = b.wide_random({kParams});
  const Tensor v = b.empty({kParams}), state = b.empty({kStepSlots}, DType::f64), sum = b.empty({1}, DType::f64);
  b.context().run(Fill{.x = v, .value = 1});
  b.context().run(Fill{.x = state, .value = 0.1});
  b.context().run(Fill{.x = sum, .value = 0});
  b.time("all parameters", 1, AdamW{.w = w, .m = m, .v = v, .g = g, .state = state});
  b.time("gradient norm", 1, Sum{.sum = sum, .x = g, .squares = true});
  b.time("zero gradients", 1, Fill{.x = g, .value = 0});
}

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

void report(const Bench& b, const Roof& roof, DType dtype, const std::string& json_file) {
  double step = 0;
  for (const Measured& r : b.results()) step += r.seconds * r.count;
  fmt::print("{:<26}{:<24}{:>5}{:>10}{:>10}{:>8}{:>10}{:>8}\n", "op", "what", "count", "ms", "GFLOP/s", "GB/s",
             "roofline", "share");
  nlohmann::json ops = nlohmann::json::array();
  double roofline = 0;
  for (const Measured& r : b.results()) {
    const double best = roof.seconds(r.cost);
    roofline += best * r.count;
    const double gflops = r.cost.flops / r.seconds * 1e-9, gbytes = r.cost.bytes() / r.seconds * 1e-9;
    fmt::print("{:<26}{:<24}{:>5}{:>10.3f}{:>10.1f}{:>8.1f}{:>9.0f}%{:>7.1f}%\n", r.name, r.what, r.count,
               r.seconds * 1e3, gflops, gbytes, 100 * best / r.seconds, 100 * r.seconds * r.count / step);
    ops.push_back({{"op", r.name},
                   {"what", r.what},
                   {"count", r.count},
                   {"seconds", r.seconds},
                   {"gflop_per_s", gflops},
                   {"gbyte_per_s", gbytes},
                   {"fraction_of_roofline", best / r.seconds},
                   {"share_of_step", r.seconds * r.count / step}});
  }
  const double rate = kModelFlops / step * 1e-9, peak = roof.peak(dtype) * 1e-9;
  fmt::print(
      "step {:.0f} ms in {}: {:.1f} model GFLOP at {:.1f} GFLOP/s, {:.1f} % of the {} peak; {:.0f} tokens/s; all "
      "operations at their roofline: {:.0f} ms\n",
      step * 1e3, name_of(dtype), kModelFlops * 1e-9, rate, 100 * rate / peak, name_of(roof.peak_type(dtype)), T / step,
      roofline * 1e3);
  if (json_file.empty()) return;
  const nlohmann::json out{{"machine", processor_name()},
                           {"instruction_set", cpu::instruction_set()},
                           {"threads", b.threads()},
                           {"dtype", name_of(dtype)},
                           {"time", b.shared() ? "least processor time per thread" : "median wall clock"},
                           {"peak_gflop_per_s", peak},
                           {"peak_dtype", name_of(roof.peak_type(dtype))},
                           {"bandwidth_gbyte_per_s", roof.bandwidth * 1e-9},
                           {"step_seconds", step},
                           {"model_gflop", kModelFlops * 1e-9},
                           {"fraction_of_peak", rate / peak},
                           {"ops", ops}};
  std::ofstream(json_file) << out.dump(2) << "\n";
}

}  // namespace

int bench_cpu(const BenchOptions& options) {
  const DType dtype = options.dtype == "bf16" ? DType::bf16 : DType::f32;
  Bench b(dtype, options.threads, options.only, options.shared);
  Roof roof{.flops = cpu::measure_fma_peak(b.pool()) * 1e9,
            .bf16_flops = cpu::measure_bf16_peak(b.pool()) * 1e9,
            .bandwidth = cpu::measure_bandwidth(b.pool()) * 1e9};
  fmt::print("{} threads, {}: {:.1f} GFLOP/s of f32 multiply-adds, {}, {:.1f} GB/s copying\n", options.threads,
             cpu::instruction_set(), roof.flops * 1e-9,
             roof.bf16_flops > 0 ? fmt::format("{:.1f} of bf16 products", roof.bf16_flops * 1e-9)
                                 : "no instruction for products of bf16",
             roof.bandwidth * 1e-9);
  attention_ops(b);
  moe_ops(b);
  model_ops(b);
  const double again = cpu::measure_fma_peak(b.pool()), bf16_again = cpu::measure_bf16_peak(b.pool());
  fmt::print("peaks after: {:.1f} GFLOP/s of f32, {:.1f} of bf16\n", again, bf16_again);
  roof.flops = std::max(roof.flops, again * 1e9);
  roof.bf16_flops = std::max(roof.bf16_flops, bf16_again * 1e9);
  report(b, roof, dtype, options.json);
  return 0;
}

}  // namespace sluice
