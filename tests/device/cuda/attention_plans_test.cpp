// cuDNN has a plan for every attention of our models, runs it by Hopper's own kernels, and keeps within the scratch
// that the operations promise: on a machine without a GPU for described ones, on another for its own.
#include "device/cuda/attention_plans.h"

#include <dlfcn.h>
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <ostream>
#include <string>

#include "device/cuda/cuda.h"
#include "support/op_fixture.h"

namespace sluice::cuda {
namespace {

struct Case {
  const char* name;
  int64_t batch, seq_len, heads, kv_heads, dim, v_dim, window = 0;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

const Case kCases[] = {
    {"Qwen3_30B", 4, 4096, 32, 4, 128, 128},        {"Qwen3_30B_short", 1, 512, 32, 4, 128, 128},
    {"Qwen3_laptop", 8, 512, 8, 1, 64, 64},         {"GptOss", 1, 4096, 64, 8, 64, 64},
    {"GptOss_window", 1, 4096, 64, 8, 64, 64, 128}, {"GptOss_window_short", 2, 256, 64, 8, 64, 64, 128},
    {"DeepSeekV3", 1, 4096, 128, 128, 192, 128},    {"DeepSeekV3_short", 2, 256, 128, 128, 192, 128},
    {"KimiK2", 1, 4096, 64, 64, 192, 128},          {"Widest", 1, 1024, 16, 2, 256, 256},
    {"OddLengths", 3, 333, 12, 4, 96, 72, 50},      {"TwoTokens", 2, 2, 4, 4, 64, 64},
};

// As cuDNN's device descriptor has it.
DescribedGpu described(const std::string& name, int memory_clock_khz, int64_t memory) {
  return {R"({"maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536,
              "multiProcessorCount": 132, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
              "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024, "maxRegistersPerSM": 65536,
              "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "pciDeviceId": 0,
              "isTccDriver": 0, "supportCoopLaunch": 1, "smClockRateKHz": 1980000, "l2CacheSize": 62914560,
              "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0, )" +
              fmt::format(R"("deviceName": "{}", "memClockRateKHz": {}, "totalGlobalMem": {}}})", name,
                          memory_clock_khz, memory),
          90};
}
DescribedGpu h100() {
  return described("NVIDIA H100 80GB HBM3", 2619000, 85'029'158'912);
}
DescribedGpu h200() {
  return described("NVIDIA H200", 3201000, 150'754'820'096);
}

// Attention as the models call it: q and k are matrices of their own, v is a part of the fused projection (grouped
// heads) or one too. There is no memory behind the tensors.
struct Ops {
  explicit Ops(const Case& c) {
    const int64_t rows = c.batch * c.seq_len;
    const int64_t v_stride =
        c.heads == c.kv_heads ? c.heads * c.v_dim : (c.heads + c.kv_heads) * c.dim + c.kv_heads * c.v_dim;
    const auto heads = [&](int64_t num, int64_t dim) { return Tensor(kNowhere, {rows, num, dim}, DType::bf16); };
    const Tensor q = heads(c.heads, c.dim), k = heads(c.kv_heads, c.dim), o = heads(c.heads, c.v_dim);
    const Tensor v(kNowhere, {rows, c.kv_heads, c.v_dim}, DType::bf16, v_stride);
    const Tensor lse(kNowhere, {rows, c.heads}, DType::f32);
    const AttentionSpec spec{.seq_len = c.seq_len, .window = c.window, .scale = 1 / std::sqrt(c.dim)};
    forward = {.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec};
    backward = {.dq = q, .dk = k, .dv = v, .d_o = o, .o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec};
    forward.check();
    backward.check();
  }
  static inline void* const kNowhere = reinterpret_cast<void*>(uintptr_t{1} << 40);
  AttentionForward forward;
  AttentionBackward backward;
};

template <class Op>
std::unique_ptr<AttentionPlan> build(AttentionGraphs& graphs, const Op& op) {
  const auto request = request_of(op);
  if (!request) {
    ADD_FAILURE() << "cuDNN is not even asked";
    return nullptr;
  }
  AttentionGraphs::Built built = graphs.build(request->problem, request->most_workspace);
  if (!built.plan) {
    ADD_FAILURE() << request->problem.str() << ": " << built.why_none;
    return nullptr;
  }
  // Nor do operations ask for much more than it takes.
  EXPECT_LE(request->most_workspace - built.plan->workspace(), op.lse.bytes() + 8192) << request->problem.str();
  return std::move(built.plan);
}

// --- described GPUs ---

class DescribedPlans : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!AttentionGraphs::available()) GTEST_SKIP() << AttentionGraphs::version();
    if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there is a GPU: its own plans are tested";
    // cuDNN finds it by its name, as loaded already.
    driver_ = ::dlopen(SLUICE_STUB_DRIVER, RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(driver_, nullptr) << ::dlerror();
    kernels_ = reinterpret_cast<const char* (*)()>(::dlsym(driver_, "stub_driver_kernels"));
    ASSERT_NE(kernels_, nullptr) << ::dlerror();
    seen_ = std::string(kernels_()).size();
  }

  void check(const DescribedGpu& gpu) {
    const Ops ops(GetParam());
    AttentionGraphs graphs(gpu);
    expect_hopper_kernels(build(graphs, ops.forward).get(), "fprop");
    expect_hopper_kernels(build(graphs, ops.backward).get(), "bprop");
  }

 private:
  // Looks at what was loaded since the last call.
  void expect_hopper_kernels(const AttentionPlan* plan, const std::string& direction) {
    ASSERT_NE(plan, nullptr);
    const std::string all = kernels_(), loaded = all.substr(seen_);
    seen_ = all.size();
    EXPECT_NE(loaded.find("sm90_flash_" + direction + "_wgmma"), std::string::npos) << plan->name() << ": " << loaded;
    EXPECT_EQ(loaded.find("sm80"), std::string::npos) << plan->name() << ": " << loaded;
    RecordProperty(direction, loaded.substr(0, loaded.find('\n')));
  }

  void* driver_ = nullptr;
  const char* (*kernels_)() = nullptr;
  size_t seen_ = 0;
};

TEST_P(DescribedPlans, H200) {
  check(h200());
}
INSTANTIATE_TEST_SUITE_P(Models, DescribedPlans, testing::ValuesIn(kCases),
                         [](const auto& tested) { return std::string(tested.param.name); });

class DescribedH100 : public DescribedPlans {};
TEST_P(DescribedH100, H100) {
  check(h100());
}
INSTANTIATE_TEST_SUITE_P(Models, DescribedH100, testing::Values(kCases[1], kCases[7]),
                         [](const auto& tested) { return std::string(tested.param.name); });

// --- the GPU that is there ---

class CudaAttention : public test::OpTest {
 protected:
  // Of rows that plans take, or of the same values in rows that they do not: o and lse, then dq, dk and dv.
  static std::vector<Tensor> run(test::TestContext& tc, const Case& c, bool for_plans) {
    const int64_t rows = c.batch * c.seq_len;
    const auto room = [&](Shape shape) {
      return for_plans ? tc.empty(shape) : tc.strided(shape, DType::bf16);  // 3 elements between rows
    };
    const auto input = [&](int64_t heads, int64_t dim, uint64_t seed) {
      const Tensor t = room({rows, heads, dim});
      test::randomize(t, seed);
      return t;
    };
    const Tensor q = input(c.heads, c.dim, 1), k = input(c.kv_heads, c.dim, 2), v = input(c.kv_heads, c.v_dim, 3);
    const Tensor d_o = input(c.heads, c.v_dim, 4), o = room(d_o.shape());
    const Tensor lse = tc.empty({rows, c.heads}, DType::f32);
    const Tensor dq = room(q.shape()), dk = room(k.shape()), dv = room(v.shape());
    const AttentionSpec spec{.seq_len = c.seq_len, .window = c.window, .scale = 1 / std::sqrt(c.dim)};
    const AttentionForward forward{.o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec};
    const AttentionBackward backward{
        .dq = dq, .dk = dk, .dv = dv, .d_o = d_o, .o = o, .lse = lse, .q = q, .k = k, .v = v, .spec = spec};
    EXPECT_EQ(request_of(forward).has_value(), for_plans) << c.name;
    EXPECT_EQ(request_of(backward).has_value(), for_plans) << c.name;
    tc->run(forward);
    tc->run(backward);
    return {o, lse, dq, dk, dv};
  }
};
INSTANTIATE_TEST_SUITE_P(Gpu, CudaAttention, testing::Values(test::emulated_backend(), test::cuda_backend()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(CudaAttention, PlansAgreeWithThePlainKernels) {
  const int64_t shrink = GetParam().name == "cuda" ? 1 : 16;
  for (const Case& c : {Case{"grouped heads", 2, 1024 / shrink, 8, 2, 128, 128},
                        Case{"window", 1, 2048 / shrink, 8, 1, 64, 64, 128 / shrink},
                        Case{"latent heads", 1, 1024 / shrink, 4, 4, 192, 128}}) {
    SCOPED_TRACE(c.name);
    test::TestContext tc(DType::bf16, GetParam());
    const std::vector<Tensor> got = run(tc, c, true), expected = run(tc, c, false);
    const int64_t reduction = 4 * c.seq_len * c.dim;
    for (size_t i = 0; i < got.size(); ++i) {
      const bool gradient = i >= 2;
      EXPECT_TRUE(test::close(
          got[i], expected[i],
          gradient ? test::global_tolerance(DType::bf16, reduction, 3) : test::tolerance(DType::bf16, reduction, 2)))
          << i;
    }
  }
}

TEST_P(CudaAttention, AllPlansAreBuilt) {
  if (GetParam().name != "cuda") GTEST_SKIP() << "cuDNN is emulated";
  if (!AttentionGraphs::available()) GTEST_SKIP() << AttentionGraphs::version();
  AttentionGraphs graphs(nullptr);
  for (const Case& c : kCases) {
    const Ops ops(c);
    EXPECT_NE(build(graphs, ops.forward), nullptr) << c.name;
    EXPECT_NE(build(graphs, ops.backward), nullptr) << c.name;
  }
}

}  // namespace
}  // namespace sluice::cuda
