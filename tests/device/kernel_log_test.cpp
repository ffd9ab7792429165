// What the log says of operations that each backend carries out in one way or another: a path that says something else
// than what it did shows here.
#include "device/kernel_log.h"

#include <gtest/gtest.h>

#include "device/cpu/peak.h"
#include "device/meta/meta_backend.h"
#include "support/test_context.h"

namespace sluice::test {
namespace {

// An operation of every part and mask, large and even enough for the libraries of a GPU.
class EveryPart {
 public:
  explicit EveryPart(TestContext& tc) : tc_(tc) {}

  void linear() {
    tc_->run(Gemm{.c = tc_.empty({kRows, kDim}), .a = rows(), .b = tc_.random({kDim, kDim}, 2), .trans_b = true});
  }
  void norm() {
    tc_->run(RmsNormForward{.y = tc_.empty({kRows, kDim}),
                            .rstd = tc_.empty({kRows}, tc_.accumulator()),
                            .x = rows(),
                            .gamma = tc_.random({kDim}, 3),
                            .eps = 1e-6});
  }
  void experts() {
    const int64_t aligned = tc_->backend().target().row_align;
    tc_->run(GroupedGemm{.y = tc_.empty({kRows, kDim}),
                         .x = rows(),
                         .w = tc_.random({2, kDim, kDim}, 4),
                         .offsets = tc_.ints({3}, {0, static_cast<double>(aligned), kRows}),
                         .trans_w = true});
  }
  void attention(int64_t window, bool sinks) {
    const Tensor o = tc_.empty({kRows, 1, kDim}), lse = tc_.empty({kRows, 1}, tc_.accumulator());
    const Tensor x = tc_.random({kRows, 1, kDim}, 5);
    tc_->run(AttentionForward{
        .o = o, .lse = lse, .q = x, .k = x, .v = x, .spec = {.seq_len = kRows, .window = window, .scale = 0.1}});
    if (sinks) tc_->run(AttentionSink{.o = o, .lse = lse, .sinks = tc_.random({1}, 6)});
  }
  void all() {
    linear();
    norm();
    experts();
    attention(0, true);
    attention(4, false);
  }

 private:
  static constexpr int64_t kRows = 16, kDim = 64;
  Tensor rows() { return tc_.random({kRows, kDim}, 1); }
  TestContext& tc_;
};

std::string text_of(const KernelLog& log) {
  std::string text;
  for (const KernelUse& use : log.uses()) text += (text.empty() ? "" : " | ") + std::string(use.part) + " " + use.ours;
  return text;
}

std::string every_part_on(const BackendCase& backend, DType dtype) {
  TestContext tc(dtype, backend);
  EveryPart(tc).all();
  return text_of(tc->backend().kernels());
}

// Of paths that do all parts alike.
std::string all_by(const std::string& name) {
  return fmt::format("attention {}: causal, sliding window, sinks | linear {} | rms_norm {} | experts {}", name, name,
                     name, name);
}

TEST(KernelLog, TheCpuSaysWhereItsFastPathEnds) {
  const std::string fast = "own " + cpu::instruction_set(), plain = "reference loops";
  EXPECT_EQ(every_part_on(cpu_backend(2), DType::f32), all_by(fast));
  EXPECT_EQ(every_part_on(cpu_backend(2), DType::f64), all_by(plain));
  EXPECT_EQ(every_part_on(cpu_backend(2), DType::bf16), all_by(fast));
  EXPECT_EQ(every_part_on(ref_backend(), DType::f32), all_by(plain));
}

TEST(KernelLog, TheGpuSaysWhatTheLibrariesTook) {
  EXPECT_EQ(
      every_part_on(emulated_backend(), DType::f32),
      "attention own CUDA: causal, sliding window, sinks | linear own CUDA | rms_norm own CUDA | experts own CUDA "
      "per expert");
  EXPECT_EQ(every_part_on(emulated_backend(), DType::bf16),
            "attention cuDNN: causal, sliding window; own CUDA: sinks | linear own CUDA | rms_norm own CUDA | experts "
            "CUTLASS grouped");
}

TEST(KernelLog, TwoThatDidTheSameAreBothNamed) {
  TestContext tc(DType::f32, cpu_backend(1));
  EveryPart(tc).linear();
  const Tensor c = tc.empty({2, 2}, DType::f64), a = tc.random_as(DType::f64, {2, 2}, 1);
  tc->run(Gemm{.c = c, .a = a, .b = a});
  EXPECT_EQ(text_of(tc->backend().kernels()), "linear own " + cpu::instruction_set() + " + reference loops");
}

TEST(KernelLog, PartsThatDidNotRunAreAbsent) {
  TestContext tc(DType::f32, ref_backend());
  EXPECT_EQ(text_of(tc->backend().kernels()), "");
  tc->run(Fill{.x = tc.empty({4}), .value = 1});
  EXPECT_EQ(text_of(tc->backend().kernels()), "") << "of no part";
  EveryPart(tc).attention(16, false);
  EXPECT_EQ(text_of(tc->backend().kernels()), "attention reference loops: causal") << "the window hides nothing";
}

TEST(KernelLog, MetaComputesNothingAndSaysNothing) {
  MetaBackend backend({.target = {.platform = Platform::gpu}});
  Context ctx(backend, DType::f32);
  const Tensor t(reinterpret_cast<void*>(64), {8, 8}, DType::f32);
  ctx.run(Gemm{.c = t, .a = t, .b = t});
  ctx.report(Part::dispatcher, Kernel::no_exchange);
  EXPECT_EQ(text_of(backend.kernels()), "");
}

}  // namespace
}  // namespace sluice::test
