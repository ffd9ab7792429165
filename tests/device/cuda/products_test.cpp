// Products on a GPU by the libraries, held to the plain kernel: that the libraries take what training asks of them,
// what they make of it, and that they make the same of it twice. Sizes are such that every stage of their pipelines
// runs.
#include <gtest/gtest.h>

#include "device/cuda/cuda.h"
#include "device/cuda/device.h"
#include "device/cuda/gemm.h"
#include "device/cuda/grouped_kernels.h"
#include "device/cuda/matmul.h"
#include "device/cuda/memory.h"
#include "device/cuda/scratch.h"
#include "support/op_fixture.h"

namespace sluice::test {
namespace {

class CudaProducts : public OpTest {
 protected:
  void SetUp() override {
    OpTest::SetUp();
    if (!IsSkipped()) device_ = std::make_unique<cuda::Device>(0);
  }

  Tensor empty(Shape shape, DType dtype) { return arena_.empty(shape, dtype); }
  Tensor upload(const HostTensor& host) {
    const Tensor t = empty(host.tensor().shape(), host.tensor().dtype());
    device_->to_device(t.raw(), host.tensor().raw(), t.bytes());
    return t;
  }
  Tensor random(Shape shape, DType dtype, uint64_t seed) {
    const HostTensor host(shape, dtype);
    randomize(host, seed);
    return upload(host);
  }
  HostTensor download(const Tensor& t) {
    HostTensor host(t.shape(), t.dtype());
    device_->to_host(host.tensor().raw(), t.raw(), t.bytes());
    return host;
  }
  Tensor copy(const Tensor& t) { return upload(download(t)); }

  std::unique_ptr<cuda::Device> device_;
  cuda::DeviceMemory memory_{0};
  Arena arena_{memory_, MemoryKind::scratch, "test"};
};
INSTANTIATE_TEST_SUITE_P(Gpu, CudaProducts, testing::Values(cuda_backend()),
                         [](const auto& tested) { return tested.param.name; });

TEST_P(CudaProducts, CublasTakesDenseProducts) {
  struct Types {
    DType in, out;
  };
  constexpr int64_t kM = 264, kN = 520, kK = 392;
  for (const auto& [in, out] : {Types{DType::bf16, DType::bf16}, Types{DType::bf16, DType::f32},
                                Types{DType::f32, DType::f32}, Types{DType::f64, DType::f64}}) {
    for (int form = 0; form < 8; ++form) {
      SCOPED_TRACE(fmt::format("{} to {}, form {}", name_of(in), name_of(out), form));
      const bool trans_a = (form & 1) != 0, trans_b = (form & 2) != 0;
      const Tensor a = random(trans_a ? Shape{kK, kM} : Shape{kM, kK}, in, 1);
      const Tensor b = random(trans_b ? Shape{kN, kK} : Shape{kK, kN}, in, 2);
      const Tensor c = random({kM, kN}, out, 3), again = copy(c), expected = copy(c);
      Gemm op{.c = c, .a = a, .b = b, .trans_a = trans_a, .trans_b = trans_b, .accumulate = (form & 4) != 0};
      EXPECT_TRUE(device_->matmul().run(op));
      op.c = again;
      EXPECT_TRUE(device_->matmul().run(op));
      op.c = expected;
      cuda::plain_gemm(*device_, op);
      EXPECT_TRUE(close(download(c), download(expected), tolerance(out, kK)));
      EXPECT_TRUE(same(download(c), download(again)));
    }
  }
}

// Enough tiles for the wide kernel.
TEST_P(CudaProducts, PlainKernelAgreesWithCublas) {
  constexpr int64_t kSide = 2200, kK = 71;
  for (const bool transposed : {false, true}) {
    const Tensor a = random(transposed ? Shape{kK, kSide} : Shape{kSide, kK}, DType::f32, 1);
    const Tensor b = random(transposed ? Shape{kSide, kK} : Shape{kK, kSide}, DType::f32, 2);
    const Tensor c = random({kSide, kSide}, DType::f32, 3), expected = copy(c);
    cuda::plain_gemm(*device_, {.c = c, .a = a, .b = b, .trans_a = transposed, .trans_b = transposed});
    EXPECT_TRUE(device_->matmul().run({.c = expected, .a = a, .b = b, .trans_a = transposed, .trans_b = transposed}));
    EXPECT_TRUE(close(download(c), download(expected), tolerance(DType::f32, kK)));
  }
}

TEST_P(CudaProducts, CublasLeavesMixedProductsAndEmptyOnes) {
  const Tensor c = random({16, 16}, DType::f32, 1), a = random({16, 16}, DType::bf16, 2);
  EXPECT_FALSE(device_->matmul().run({.c = c, .a = a, .b = c}));
  EXPECT_FALSE(device_->matmul().run({.c = c, .a = a.cols(0, 0), .b = a.rows(0, 0)}));
}

TEST_P(CudaProducts, CutlassTakesExpertsOfAnySize) {
  const std::string without = "no CUTLASS";
  if (cuda::grouped_version().starts_with(without)) GTEST_SKIP() << cuda::grouped_version();
  if (cuda::find_gpus().list[0].capability != 90) GTEST_SKIP() << "not a GPU of capability 9.0";
  const std::vector<int64_t> rows{0, 1, 127, 128, 129, 700, 0};
  const auto num_experts = static_cast<int64_t>(rows.size());
  constexpr int64_t kRows = 1200, kIn = 776, kOut = 1304, kFirst = 16;
  std::vector<double> at{kFirst};
  for (const int64_t count : rows) at.push_back(at.back() + static_cast<double>(count));
  const Tensor offsets = upload(HostTensor({num_experts + 1}, DType::i32, at));
  const Tensor x = random({kRows, kIn}, DType::bf16, 1), w = random({num_experts, kOut, kIn}, DType::bf16, 2);
  const Tensor scratch = empty({static_cast<int64_t>(gpu::grouped_workspace(num_experts))}, DType::u8);
  struct Results {
    Tensor y, dx, dw;
  };
  const auto begin = [&] {
    return Results{random({kRows, kOut}, DType::bf16, 3), random({kRows, kIn}, DType::bf16, 4),
                   random(w.shape(), DType::f32, 5)};
  };
  const auto by_kernels = [&] {
    const Results r = begin();
    EXPECT_TRUE(cuda::run_grouped(*device_, {.y = r.y, .x = x, .w = w, .offsets = offsets, .trans_w = true}, scratch));
    EXPECT_TRUE(cuda::run_grouped(*device_, GroupedGemm{.y = r.dx, .x = r.y, .w = w, .offsets = offsets}, scratch));
    EXPECT_TRUE(cuda::run_grouped(*device_, {.dw = r.dw, .dy = r.y, .x = x, .offsets = offsets}, scratch));
    return r;
  };
  const Results first = by_kernels(), second = by_kernels(), expected = begin();
  int64_t from = kFirst;
  for (int64_t e = 0; e < num_experts; ++e) {
    const int64_t count = rows[static_cast<size_t>(e)];
    const Tensor we = w.rows(e, 1).view({kOut, kIn}), dwe = expected.dw.rows(e, 1).view({kOut, kIn});
    const Tensor xe = x.rows(from, count), ye = expected.y.rows(from, count);
    cuda::plain_gemm(*device_, {.c = ye, .a = xe, .b = we, .trans_b = true});
    // The kernels' own y, so that differences do not add up.
    const Tensor dy = first.y.rows(from, count);
    cuda::plain_gemm(*device_, {.c = expected.dx.rows(from, count), .a = dy, .b = we});
    cuda::plain_gemm(*device_, {.c = dwe, .a = dy, .b = xe, .trans_a = true, .accumulate = true});
    from += count;
  }
  EXPECT_TRUE(close(download(first.y), download(expected.y), tolerance(DType::bf16, kIn)));
  EXPECT_TRUE(close(download(first.dx), download(expected.dx), tolerance(DType::bf16, kOut)));
  EXPECT_TRUE(close(download(first.dw), download(expected.dw), tolerance(DType::f32, kRows)));
  for (const auto& [a, b] : {std::pair{first.y, second.y}, {first.dx, second.dx}, {first.dw, second.dw}}) {
    EXPECT_TRUE(same(download(a), download(b)));
  }
  // Rows outside the segments and experts without rows.
  const Results before = begin();
  EXPECT_TRUE(same(download(first.y.rows(0, kFirst)), download(before.y.rows(0, kFirst))));
  EXPECT_TRUE(same(download(first.y.rows(from, kRows - from)), download(before.y.rows(from, kRows - from))));
  EXPECT_TRUE(same(download(first.dw.rows(0, 1)), download(before.dw.rows(0, 1))));
  EXPECT_TRUE(same(download(first.dw.rows(num_experts - 1, 1)), download(before.dw.rows(num_experts - 1, 1))));
}

}  // namespace
}  // namespace sluice::test
