// The grouped kernels as plain loops over the problems that lie on the device, with the rules of the real ones: what
// grouped_problems.cu writes is tested by every test of a grouped operation that the kernels take.
#include "device/cuda/device.h"
#include "device/cuda/grouped_kernels.h"
#include "device/cuda/grouped_problems.h"
#include "emulation/emulated.h"
#include "emulation/streams.h"

namespace sluice::cuda {

namespace {

thread_local int64_t products = 0;

void expect_aligned(const void* data, int64_t stride, size_t size) {
  const bool aligned = reinterpret_cast<uintptr_t>(data) % 16 == 0 && static_cast<size_t>(stride) * size % 16 == 0;
  require(aligned, "a matrix that TMA refuses: at {}, stride {}", data, stride);
}

// (i, j) of a matrix stored by rows, or by columns.
template <class T>
T& at(T* data, int64_t stride, bool by_columns, int64_t i, int64_t j) {
  return by_columns ? data[j * stride + i] : data[i * stride + j];
}

template <class D>
void multiply(const GroupedProblems& problems, bool a_by_columns, bool b_by_columns, bool accumulate) {
  for (int64_t e = 0; e < problems.num_experts; ++e) {
    const int32_t* sizes = problems.sizes + 3 * e;
    const int64_t m = sizes[0], n = sizes[1], k = sizes[2];
    require(m >= 0 && n >= 0 && k >= 0, "sizes {} {} {} of expert {}", m, n, k, e);
    if (m == 0 || n == 0) continue;
    require(k > 0, "expert {} has a depth of 0", e);
    const auto* a = static_cast<const bf16*>(problems.a[e]);
    const auto* b = static_cast<const bf16*>(problems.b[e]);
    auto* d = static_cast<D*>(problems.d[e]);
    expect_aligned(a, problems.a_stride[e], sizeof(bf16));
    expect_aligned(b, problems.b_stride[e], sizeof(bf16));
    expect_aligned(d, problems.d_stride[e], sizeof(D));
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        D& to = at(d, problems.d_stride[e], false, i, j);
        float sum = accumulate ? static_cast<float>(to) : 0.0F;
        for (int64_t l = 0; l < k; ++l) {
          sum += static_cast<float>(at(a, problems.a_stride[e], a_by_columns, i, l)) *
                 static_cast<float>(at(b, problems.b_stride[e], b_by_columns, l, j));
        }
        to = D(sum);
      }
    }
  }
}

}  // namespace

bool run_grouped(Device& device, const GroupedGemm& op, const Tensor& scratch) {
  const auto problems = make_problems(device, op, scratch);
  if (!problems) return false;
  ++products;
  emulation::put(device.stream(), [p = *problems, trans_w = op.trans_w] { multiply<bf16>(p, false, trans_w, false); });
  return true;
}

bool run_grouped(Device& device, const GroupedGemmWeight& op, const Tensor& scratch) {
  const auto problems = make_problems(device, op, scratch);
  if (!problems) return false;
  ++products;
  emulation::put(device.stream(), [p = *problems] { multiply<float>(p, true, false, true); });
  return true;
}

std::string grouped_version() {
  return "emulated";
}

}  // namespace sluice::cuda

namespace sluice::emulation {

int64_t grouped_products() {
  return cuda::products;
}

}  // namespace sluice::emulation
