// Floors are what an H200 is to reach, in TFLOP/s, or as a share of its copy bandwidth: 3.2 TB/s of 4.3 for a norm.
// Legend: T tokens, S sequence, D hidden, H heads, G key/value heads, C head width, E experts, K slots, F expert width,
// V vocabulary, M expert rows.
#include "gpu_ops.h"

#include <cmath>

#include "attention_alone.h"

namespace sluice {

namespace {

struct Model {
  const char* name;
  int64_t T, S, D, H, G, C, E, K, F, V;
};
// The rows' micro-batches.
constexpr Model kQwen{"Qwen3 30B", 16384, 4096, 2048, 32, 4, 128, 128, 8, 768, 151936};
constexpr Model kDeepSeek{"DeepSeek V3", 4096, 4096, 7168, 128, 128, 128, 256, 8, 2048, 129280};
constexpr Model kGptOss{"GPT-OSS", 8192, 4096, 2880, 64, 8, 64, 32, 4, 2880, 201088};
constexpr Model kTiny{"tiny", 32, 16, 64, 4, 2, 16, 8, 2, 32, 96};
constexpr int64_t kWindow = 128, kRotary = 64;

constexpr double kProduct = 750, kManyExperts = 550, kFewExperts = 620;
constexpr double kMoved = 0.85, kNormForward = 3.2 / 4.3, kNormBackward = 2.6 / 4.3;
constexpr double kAttentionShare = 0.95;

double count(int64_t n) {
  return static_cast<double>(n);
}

// --- dense products ---

void dense_products(GpuBench& b, const std::string& what, int64_t rows, int64_t in, int64_t out) {
  const ArenaScope scope = b.group();
  const Tensor x = b.random({rows, in}), w = b.random({out, in}, 0.02), y = b.empty({rows, out});
  const Tensor dy = b.random({rows, out}), dx = b.empty({rows, in}), dw = b.random({out, in}, 1, DType::f32);
  b.time(what, Gemm{.c = y, .a = x, .b = w, .trans_b = true}, product_floor(kProduct));
  b.time(what + ", input gradient", Gemm{.c = dx, .a = dy, .b = w}, product_floor(kProduct));
  b.time(what + ", weight gradient", Gemm{.c = dw, .a = dy, .b = x, .trans_a = true, .accumulate = true},
         product_floor(kProduct));
}

// --- experts' products ---

void expert_products(GpuBench& b, const std::string& what, int64_t experts, int64_t rows, int64_t in, int64_t out,
                     double tflops) {
  const ArenaScope scope = b.group();
  std::vector<int32_t> ends;
  for (int64_t e = 0; e <= experts; ++e) ends.push_back(static_cast<int32_t>(e * rows));
  const Tensor offsets = b.upload({experts + 1}, ends);
  const int64_t M = experts * rows;
  const Tensor x = b.random({M, in}), w = b.random({experts, out, in}, 0.02), y = b.empty({M, out});
  const Tensor dy = b.random({M, out}), dx = b.empty({M, in}), dw = b.random({experts, out, in}, 1, DType::f32);
  b.time(what, GroupedGemm{.y = y, .x = x, .w = w, .offsets = offsets, .trans_w = true}, product_floor(tflops));
  b.time(what + ", input gradient", GroupedGemm{.y = dx, .x = dy, .w = w, .offsets = offsets}, product_floor(tflops));
  b.time(what, GroupedGemmWeight{.dw = dw, .dy = dy, .x = x, .offsets = offsets}, product_floor(tflops));
}

// --- attention ---

struct Heads {
  std::string what;
  int64_t batch, S, H, G, C, Cv, window = 0;
  double forward_s = 0, backward_s = 0;  // what another implementation is published to take
};

template <class Op>
void time_attention(GpuBench& b, AttentionAlone* alone, const Heads& h, const Op& op, const Tensor& stats,
                    double published) {
  Floor floor;
  if (published > 0) floor = {.seconds = published, .text = "the published time"};
  if (!b.time(h.what, op, floor) || alone == nullptr) return;
  const auto bytes = static_cast<int64_t>(scratch_of(op, {.platform = Platform::gpu}));
  const AloneRun run = alone->plan(op, stats, b.empty({bytes}, DType::u8));
  TimedOp& timed = b.last();
  if (!run.run) {
    timed.alone_by = run.why_none;
    return;
  }
  timed.alone_by = run.plan;
  timed.alone = b.measure(run.run);
  if (published == 0) {
    timed.floor = {.seconds = timed.alone.median / kAttentionShare,
                   .text = fmt::format("{:.0f} % of cuDNN alone", 100 * kAttentionShare)};
  }
}

void attention(GpuBench& b, AttentionAlone* alone, const Heads& h) {
  const ArenaScope scope = b.group();
  const int64_t T = h.batch * h.S;
  const Tensor q = b.random({T, h.H, h.C}), k = b.random({T, h.G, h.C}), v = b.random({T, h.G, h.Cv});
  const Tensor o = b.empty({T, h.H, h.Cv}), d_o = b.random({T, h.H, h.Cv}), lse = b.empty({T, h.H}, DType::f32);
  const Tensor dq = b.empty({T, h.H, h.C}), dk = b.empty({T, h.G, h.C}), dv = b.empty({T, h.G, h.Cv});
  const Tensor stats = b.empty({T * h.H}, DType::f32);
  const AttentionSpec spec{.seq_len = h.S, .window = h.window, .scale = 1 / std::sqrt(count(h.C))};
  time_attention(b, alone, h, AttentionForward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec}, stats,
                 h.forward_s);
  time_attention(
      b, alone, h,
      AttentionBackward{
          .dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec},
      stats, h.backward_s);
}

void all_attention(GpuBench& b, bool tiny) {
  const auto alone = b.on_gpu() ? std::make_unique<AttentionAlone>(b.context().compute().native()) : nullptr;
  if (tiny) {
    attention(b, alone.get(), {"tiny", 2, 16, 4, 2, 16, 16, 5});
    return;
  }
  attention(b, alone.get(), {"Qwen3 30B, 4 x 4096, 32 / 4 heads of 128", 4, 4096, 32, 4, 128, 128});
  attention(b, alone.get(), {"1 x 4096, 64 / 8 heads of 128", 1, 4096, 64, 8, 128, 128});
  attention(b, alone.get(), {"DeepSeek V3, 1 x 4096, 128 heads of 192 / 128", 1, 4096, 128, 128, 192, 128});
  attention(b, alone.get(), {"GPT-OSS, 2 x 4096, 64 / 8 heads of 64", 2, 4096, 64, 8, 64, 64});
  attention(b, alone.get(),
            {"2 x 4096, 128 / 16 heads of 64, window 128", 2, 4096, 128, 16, 64, 64, kWindow, 0.262e-3, 0.753e-3});
}

void sink(GpuBench& b, const Model& m) {
  const ArenaScope scope = b.group();
  const Tensor o = b.random({m.T, m.H, m.C}), d_o = b.random({m.T, m.H, m.C}), sinks = b.random({m.H});
  const Tensor lse = b.random({m.T, m.H}, 2, DType::f32), dsinks = b.random({m.H}, 1, DType::f32);
  b.time(m.name, AttentionSink{.o = o, .lse = lse, .sinks = sinks}, copy_floor(kMoved));
  b.time(m.name, AttentionSinkBackward{.dsinks = dsinks, .d_o = d_o, .o = o, .lse = lse, .sinks = sinks},
         copy_floor(kMoved));
}

// --- norms and positions ---

void norms(GpuBench& b, const Model& m) {
  const ArenaScope scope = b.group();
  const Tensor x = b.random({m.T, m.D}), add = b.random({m.T, m.D}), dy = b.random({m.T, m.D}), gamma = b.random({m.D});
  const Tensor y = b.empty({m.T, m.D}), sum = b.empty({m.T, m.D}), rstd = b.empty({m.T}, DType::f32);
  const Tensor dx = b.empty({m.T, m.D}), dgamma = b.random({m.D}, 1, DType::f32);
  constexpr double kEps = 1e-6;
  b.time(m.name, RmsNormForward{.y = y, .rstd = rstd, .x = x, .gamma = gamma, .eps = kEps}, copy_floor(kNormForward));
  b.time(m.name,
         ResidualRmsNormForward{.sum = sum, .y = y, .rstd = rstd, .x = x, .add = add, .gamma = gamma, .eps = kEps},
         copy_floor(kNormForward));
  b.time(m.name,
         RmsNormBackward{.dx = dx, .dgamma = dgamma, .dy = dy, .x = x, .rstd = rstd, .gamma = gamma, .residual = add},
         copy_floor(kNormBackward));
}

void heads_and_positions(GpuBench& b, const Model& m) {
  const ArenaScope scope = b.group();
  const Tensor qkv = b.random({m.T, (m.H + 2 * m.G) * m.C}), gamma = b.random({m.C});
  const Tensor raw = qkv.cols(0, m.H * m.C).split_cols(m.H, m.C), q = b.empty({m.T, m.H, m.C});
  const Tensor rstd = b.empty({m.T, m.H}, DType::f32), dgamma = b.random({m.C}, 1, DType::f32);
  const Tensor dy = b.random({m.T, m.H, m.C}), dx = b.empty({m.T, m.H, m.C});
  const std::string what = std::string(m.name) + ", query heads";
  b.time(what, RmsNormForward{.y = q, .rstd = rstd, .x = raw, .gamma = gamma, .eps = 1e-6}, copy_floor(kNormForward));
  b.time(what,
         RmsNormBackward{.dx = dx, .dgamma = dgamma, .dy = dy, .x = raw, .rstd = rstd, .gamma = gamma, .residual = {}},
         copy_floor(kNormBackward));
  const Tensor table = b.empty({m.S, m.C}, DType::f32);
  b.time("", RopeTable{.cos_sin = table, .theta = 1e6}, {});
  b.time(what, Rope{.x = q, .cos_sin = table}, copy_floor(kMoved));
}

void latent_heads(GpuBench& b, const Model& m) {
  const ArenaScope scope = b.group();
  const int64_t rotary = m.C < kRotary ? m.C / 2 : kRotary, width = m.C + rotary;
  const Tensor q = b.random({m.T, m.H, width}), k = b.empty({m.T, m.H, width}), v = b.empty({m.T, m.H, m.C});
  const Tensor kv = b.random({m.T, m.H, 2 * m.C}), k_pe = b.random({m.T, rotary});
  const Tensor table = b.empty({m.S, rotary}, DType::f32);
  b.context().run(RopeTable{.cos_sin = table, .theta = 1e4});
  // Of q only the rotated columns move.
  const double moved = 2.0 * count(m.T) * count(m.H) * count(2 * rotary + 2 * m.C + width + m.C);
  b.time(m.name, MlaHeads{.q = q, .k = k, .v = v, .kv = kv, .k_pe = k_pe, .cos_sin = table}, copy_floor(kMoved, moved));
  b.time(m.name, MlaHeadsBackward{.dq = q, .dkv = kv, .dk_pe = k_pe, .dk = k, .dv = v, .cos_sin = table},
         copy_floor(kMoved, moved));
}

// --- routing and the experts' rows ---

void routing(GpuBench& b, const Model& m) {
  const ArenaScope scope = b.group();
  const Tensor x = b.random({m.T, m.D}), w = b.random({m.E, m.D}, 0.02), logits = b.empty({m.T, m.E}, DType::f32);
  const Tensor experts = b.empty({m.T, m.K}, DType::i32), weights = b.empty({m.T, m.K}, DType::f32);
  const Tensor probs = b.empty({m.T, m.E}, DType::f32), dlogits = b.empty({m.T, m.E}, DType::f32);
  const Tensor dweights = b.random({m.T, m.K}, 1, DType::f32), bias = b.random({m.E}, 0.01, DType::f32);
  const std::string router = std::string(m.name) + ", router";
  b.time(router, Gemm{.c = logits, .a = x, .b = w, .trans_b = true}, copy_floor(kMoved));
  b.time(m.name, SoftmaxTopKForward{.experts = experts, .weights = weights, .probs = probs, .logits = logits},
         copy_floor(kMoved));
  b.time(m.name,
         SoftmaxTopKBackward{
             .dlogits = dlogits, .dweights = dweights, .experts = experts, .weights = weights, .probs = probs},
         copy_floor(kMoved));
  const bool grouped = m.E >= 64;
  const SigmoidRouterSpec spec{
      .groups = grouped ? 8 : 1, .top_groups = grouped ? 4 : 1, .normalize = true, .scale = 2.5};
  b.time(m.name,
         SigmoidTopKForward{
             .experts = experts, .weights = weights, .scores = probs, .logits = logits, .bias = bias, .spec = spec},
         copy_floor(kMoved));
  b.time(m.name,
         SigmoidTopKBackward{.dlogits = dlogits,
                             .dweights = dweights,
                             .experts = experts,
                             .weights = weights,
                             .scores = probs,
                             .spec = spec},
         copy_floor(kMoved));
  const Tensor load = b.random({m.E}, 1, DType::f32), grad_scale = b.random({1}, 1, DType::f64);
  b.time(m.name, RouterZBackward{.dlogits = dlogits, .logits = logits, .grad_scale = grad_scale, .coef = 1e-3},
         copy_floor(kMoved));
  b.time(m.name, ExpertLoad{.load = load, .experts = experts}, copy_floor(kMoved));
  b.time(m.name,
         BalanceLossBackward{.dlogits = dlogits,
                             .probs = probs,
                             .load = load.view({1, m.E}),
                             .grad_scale = grad_scale,
                             .slots = m.T * m.K,
                             .coef = 1e-3},
         copy_floor(kMoved));
  b.time(m.name, BalanceBias{.bias = bias, .load = load, .mean = 1, .rate = 1e-3}, {});
  b.time(m.name, LoadShare{.share = bias, .load = load, .slots = 1e6}, {});
}

// `local` experts, onto which the model's are folded.
void experts_rows(GpuBench& b, const Model& m, int64_t local) {
  const ArenaScope scope = b.group();
  const std::string what = fmt::format("{}, {} experts", m.name, local);
  const int64_t align = b.on_gpu() ? b.context().backend().target().row_align : 1, M = m.T * m.K + local * align;
  const Tensor experts = b.empty({m.T, m.K}, DType::i32), weights = b.empty({m.T, m.K}, DType::f32);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < m.T / m.S; ++i) ids.push_back(i);
  const GateSpec gate{.kind = GateKind::spread, .num_experts = m.E, .top_k = m.K, .seed = 1};
  b.time(what,
         ForcedGate{.experts = experts,
                    .weights = weights,
                    .sample_ids = b.upload({m.T / m.S}, ids),
                    .seq_len = m.S,
                    .gate = gate},
         {});
  constexpr int64_t kRanks = 8;
  const Tensor counts = b.empty({kRanks, 2}, DType::i32),
               send_token = b.empty({m.T * std::min(m.K, kRanks)}, DType::i32);
  const Tensor send_row = b.empty({m.T, std::min(m.K, kRanks)}, DType::i32);
  b.time(fmt::format("{}, {} ranks", m.name, kRanks),
         DispatchPlan{
             .counts = counts, .send_token = send_token, .send_row = send_row, .experts = experts, .num_experts = m.E},
         {});
  const Tensor offsets = b.empty({local + 1}, DType::i32), row_token = b.empty({M}, DType::i32);
  const Tensor row_slot = b.empty({M}, DType::i32), slot_row = b.empty({m.T, m.K}, DType::i32);
  b.time(what,
         ExpertSort{.offsets = offsets,
                    .row_token = row_token,
                    .row_slot = row_slot,
                    .slot_row = slot_row,
                    .experts = experts,
                    .row_align = align,
                    .folded = true},
         {});
  b.time(what, InvertIndex{.inverse = b.empty({m.T * m.K}, DType::i32), .index = row_slot}, {});
  const Tensor x = b.random({m.T, m.D}), rows = b.random({M, m.D}), y = b.empty({m.T, m.D});
  const Tensor row_weight = b.empty({M, 1}, DType::f32);
  b.time(what, GatherRows{.y = rows, .x = x, .index = row_token}, copy_floor(kMoved));
  b.time(what + ", weights", GatherRows{.y = row_weight, .x = weights.view({m.T * m.K, 1}), .index = row_slot}, {});
  b.time(what, SumRows{.y = y, .x = rows, .index = slot_row, .add = x}, copy_floor(kMoved));
  const Tensor gate_up = b.random({M, 2 * m.F}), h = b.random({M, m.F}), dgate_up = b.empty({M, 2 * m.F});
  const Tensor weight = row_weight.view({M}), dweight = b.empty({M}, DType::f32);
  b.time(what, SwigluForward{.h = h, .gate_up = gate_up, .weight = weight}, copy_floor(kMoved));
  b.time(what, SwigluBackward{.dgate_up = dgate_up, .dweight = dweight, .dh = h, .gate_up = gate_up, .weight = weight},
         copy_floor(kMoved));
  const Tensor biases = b.random({local, m.D}), dbiases = b.random({local, m.D}, 1, DType::f32);
  b.time(what, AddBias{.y = rows, .b = biases, .offsets = offsets, .weight = weight}, copy_floor(kMoved));
  b.time(what,
         BiasBackward{.db = dbiases, .dweight = dweight, .dy = rows, .b = biases, .offsets = offsets, .weight = weight},
         copy_floor(kMoved));
}

// --- both ends of the model ---

void ends(GpuBench& b, const Model& m) {
  const ArenaScope scope = b.group();
  const Tensor tokens = b.ints({m.T}, m.V), table = b.random({m.V, m.D}, 0.02), x = b.random({m.T, m.D});
  const Tensor dw = b.random({m.V, m.D}, 1, DType::f32), dx = b.empty({m.T, m.D}), loss = b.empty({m.T}, DType::f32);
  const double row = count(m.T) * count(m.D);
  b.time(m.name, EmbeddingForward{.y = dx, .w = table, .tokens = tokens}, copy_floor(kMoved, 4 * row));
  b.time(m.name, EmbeddingBackward{.dw = dw, .dy = x, .tokens = tokens}, copy_floor(kMoved, 10 * row));
  const Tensor scale = b.upload<double>({1}, {1.0 / count(m.T)});
  // Three products, and the logits written, read and rewritten, and read for each gradient.
  Floor floor = copy_floor(kMoved, 10.0 * count(m.T) * count(m.V));
  floor.flop_per_s = kProduct * 1e12;
  floor.text = fmt::format("{} TFLOP/s and 5 passes over the logits", kProduct);
  b.time(m.name, HeadLoss{.loss = loss, .dx = dx, .dw = dw, .x = x, .w = table, .labels = tokens, .grad_scale = scale},
         floor);
}

void optimizer(GpuBench& b, int64_t parameters) {
  const ArenaScope scope = b.group();
  const Tensor w = b.random({parameters}, 0.02), g = b.random({parameters}, 0.1, DType::f32);
  const Tensor m = b.random({parameters}, 0.1), v = b.empty({parameters});
  const Tensor master = b.random({parameters}, 0.02, DType::f32);
  b.time("bf16", Fill{.x = v, .value = 0.01}, copy_floor(kMoved));
  std::vector<double> slots(kStepSlots, 1);
  slots[kLearningRate] = 1e-4;
  slots[kBiasCorrection1] = 0.1;
  slots[kBiasCorrection2] = 0.001;
  const Tensor state = b.upload({kStepSlots}, slots), sum = b.upload<double>({1}, {0});
  b.time("states bf16, no master",
         AdamW{.w = w, .master = {}, .m = m, .v = v, .g = g, .state = state, .stochastic_rounding = true, .key = 1},
         copy_floor(kMoved));
  b.time("states bf16, master f32", AdamW{.w = w, .master = master, .m = m, .v = v, .g = g, .state = state},
         copy_floor(kMoved));
  b.time("of squares, f32", Sum{.sum = sum, .x = g, .squares = true}, copy_floor(kMoved));
  b.time("", ClipFactor{.state = state, .sum_squares = sum, .max_norm = 1}, {});
  b.time("f32", FillNormal{.x = g, .std = 1, .key = 2}, {});
  b.time("f32 to bf16", Copy{.y = w, .x = g}, copy_floor(kMoved));
  b.time("bf16", Add{.y = w, .x = m}, copy_floor(kMoved));
}

}  // namespace

Ceilings measure_ceilings(GpuBench& b, int64_t side, int64_t bytes) {
  const ArenaScope scope = b.group();
  const Tensor a = b.random({side, side}), w = b.random({side, side}), c = b.empty({side, side});
  const Gemm product{.c = c, .a = a, .b = w, .trans_b = true};
  const Tensor x = b.random({bytes / 4}, 1, DType::f32), y = b.empty({bytes / 4}, DType::f32);
  const Batches gemm = b.measure([&] { b.context().run(product); });
  const Batches copy = b.measure([&] { b.context().run(Copy{.y = y, .x = x}); });
  if (!b.real()) return {};
  return {.flop_per_s = product.flops() / gemm.median, .copy_byte_per_s = 2 * count(bytes) / copy.median};
}

void time_all_operations(GpuBench& b, bool tiny) {
  if (tiny) {
    dense_products(b, "tiny", 32, 64, 48);
    expert_products(b, "tiny, 4 experts, gate and up", 4, 16, 64, 64, kManyExperts);
    expert_products(b, "tiny, 4 experts, down", 4, 16, 32, 64, kManyExperts);
  } else {
    dense_products(b, "8192 x 4096 x 4096", 8192, 4096, 4096);
    dense_products(b, "Qwen3 30B, qkv", kQwen.T, kQwen.D, (kQwen.H + 2 * kQwen.G) * kQwen.C);
    dense_products(b, "Qwen3 30B, attention out", kQwen.T, kQwen.H * kQwen.C, kQwen.D);
    dense_products(b, "DeepSeek V3, dense layer", kDeepSeek.T, kDeepSeek.D, 2 * 18432);
    expert_products(b, "Qwen3 30B, 128 experts, gate and up", 128, 1024, 2048, 1536, kManyExperts);
    expert_products(b, "Qwen3 30B, 128 experts, down", 128, 1024, 768, 2048, kManyExperts);
    expert_products(b, "Qwen3 30B, 16 experts, gate and up", 16, 8192, 2048, 1536, kFewExperts);
    expert_products(b, "Qwen3 30B, 16 experts, down", 16, 8192, 768, 2048, kFewExperts);
    expert_products(b, "DeepSeek V3, 4 experts, gate and up", 4, 8192, 7168, 4096, kFewExperts);
    expert_products(b, "DeepSeek V3, 4 experts, down", 4, 8192, 2048, 7168, kFewExperts);
    expert_products(b, "GPT-OSS, 32 experts, gate and up", 32, 1024, 2880, 5760, kManyExperts);
    expert_products(b, "GPT-OSS, 32 experts, down", 32, 1024, 2880, 2880, kManyExperts);
  }
  all_attention(b, tiny);
  sink(b, tiny ? kTiny : kGptOss);
  if (tiny) {
    norms(b, kTiny);
  } else {
    norms(b, kQwen);
    norms(b, kDeepSeek);
  }
  heads_and_positions(b, tiny ? kTiny : kQwen);
  latent_heads(b, tiny ? kTiny : kDeepSeek);
  if (tiny) {
    routing(b, kTiny);
    experts_rows(b, kTiny, kTiny.E / 2);
  } else {
    routing(b, kQwen);
    routing(b, kDeepSeek);
    experts_rows(b, kQwen, kQwen.E);
    experts_rows(b, kQwen, 16);
    experts_rows(b, kDeepSeek, 4);
    experts_rows(b, kGptOss, kGptOss.E);
  }
  ends(b, tiny ? kTiny : kQwen);
  if (!tiny) ends(b, kDeepSeek);
  optimizer(b, tiny ? int64_t{1} << 12 : int64_t{1} << 29);
}

}  // namespace sluice
