#include "device/cuda/matmul.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "device/cuda/device.h"

namespace sluice::cuda {

namespace {

// What NVIDIA advises for Hopper. Taken once, so that no product allocates.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;
// Looped experts ask for ever new shapes; more plans than this are not kept.
constexpr size_t kMostPlans = 4096;

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw runtime_failure("{}: {}", what, cublasLtGetStatusString(status));
}

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::f64 ? CUDA_R_64F : dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF;
}

// The largest power of two, up to 256, that the address is a multiple of.
uint32_t alignment_of(const Tensor& t) {
  const auto address = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(t.raw()));
  return std::min((address & (0U - address)) - 1, 255U) + 1;
}

// A stored matrix as the library, which counts columns first, sees it: transposed. A single row may have any stride.
struct Stored {
  cublasLtMatrixLayoutOpaque_t layout;
  explicit Stored(const Tensor& t) {
    const int64_t stride = t.dim(0) > 1 ? t.stride() : t.dim(1);
    check(cublasLtMatrixLayoutInit(&layout, type_of(t.dtype()), static_cast<uint64_t>(t.dim(1)),
                                   static_cast<uint64_t>(t.dim(0)), stride),
          "cublasLtMatrixLayoutInit");
  }
};

// How to compute products of one kind.
struct Plan {
  cublasLtMatmulDescOpaque_t product{};
  Stored a, b, c;
  cublasLtMatmulAlgo_t algorithm{};
};

using Key = std::array<int64_t, 10>;

Key key_of(const Gemm& op, int free_sms) {
  const int64_t forms = (op.trans_a ? 1 : 0) | (op.trans_b ? 2 : 0) | (op.accumulate ? 4 : 0);
  const int64_t types = static_cast<int64_t>(op.a.dtype()) * 256 + static_cast<int64_t>(op.c.dtype());
  const int64_t alignments =
      (int64_t{alignment_of(op.a)} * 512 + int64_t{alignment_of(op.b)}) * 512 + int64_t{alignment_of(op.c)};
  return {op.m(), op.n(), op.k(), op.a.stride(), op.b.stride(), op.c.stride(), forms, types, alignments, free_sms};
}

template <class T>
void set(cublasLtMatmulDescOpaque_t& product, cublasLtMatmulDescAttributes_t attribute, T value) {
  check(cublasLtMatmulDescSetAttribute(&product, attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
}
template <class T>
void set(cublasLtMatmulPreferenceOpaque_t& wanted, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check(cublasLtMatmulPreferenceSetAttribute(&wanted, attribute, &value, sizeof(value)),
        "cublasLtMatmulPreferenceSetAttribute");
}

}  // namespace

struct Matmul::State {
  Device& device;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;
  int free_sms = 0;
  std::map<Key, std::optional<Plan>> plans;  // without a plan: the library has none

  explicit State(Device& on) : device(on) {
    device.use();
    cuda::check(cudaMalloc(&workspace, kWorkspaceBytes), "cudaMalloc of the workspace of products");
    const cublasStatus_t status = cublasLtCreate(&handle);
    if (status != CUBLAS_STATUS_SUCCESS) cudaFree(workspace);
    check(status, "cublasLtCreate");
  }
  ~State() {
    cublasLtDestroy(handle);
    cudaFree(workspace);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  std::optional<Plan> make_plan(const Gemm& op) const;
};

// In the library's order c^T = b'^T a'^T, so that b is its first operand.
std::optional<Plan> Matmul::State::make_plan(const Gemm& op) const {
  Plan plan{.a = Stored(op.a), .b = Stored(op.b), .c = Stored(op.c)};
  const bool f64 = op.c.dtype() == DType::f64;
  check(cublasLtMatmulDescInit(&plan.product, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                               f64 ? CUDA_R_64F : CUDA_R_32F),
        "cublasLtMatmulDescInit");
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, op.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSB, op.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (free_sms > 0) {
    set(plan.product, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, std::max(device.num_sms() - free_sms, 1));
  }

  cublasLtMatmulPreferenceOpaque_t wanted;
  check(cublasLtMatmulPreferenceInit(&wanted), "cublasLtMatmulPreferenceInit");
  set(wanted, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  // Parts of the depth are added in f32 and in a fixed order, or there are none.
  set(wanted, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(wanted, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(op.b));
  set(wanted, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(op.a));
  set(wanted, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(op.c));
  set(wanted, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(op.c));

  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle, &plan.product, &plan.b.layout, &plan.a.layout, &plan.c.layout,
                                     &plan.c.layout, &wanted, 1, &found, &count);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0 || found.state != CUBLAS_STATUS_SUCCESS) return std::nullopt;
  plan.algorithm = found.algo;
  return plan;
}

Matmul::Matmul(Device& device) : state_(std::make_unique<State>(device)) {}
Matmul::~Matmul() = default;

bool Matmul::run(const Gemm& op) {
  const DType in = op.a.dtype(), out = op.c.dtype();
  const bool types = in == op.b.dtype() && (in == out || (in == DType::bf16 && out == DType::f32));
  if (!types || op.m() == 0 || op.n() == 0 || op.k() == 0) return false;

  State& s = *state_;
  const Key key = key_of(op, s.free_sms);
  auto at = s.plans.find(key);
  if (at == s.plans.end()) {
    if (s.plans.size() >= kMostPlans) s.plans.clear();
    at = s.plans.emplace(key, s.make_plan(op)).first;
  }
  if (!at->second) return false;

  Plan& plan = *at->second;
  const double one64 = 1, beta64 = op.accumulate ? 1 : 0;
  const float one32 = 1, beta32 = op.accumulate ? 1 : 0;
  const bool f64 = out == DType::f64;
  check(cublasLtMatmul(s.handle, &plan.product, f64 ? static_cast<const void*>(&one64) : &one32, op.b.raw(),
                       &plan.b.layout, op.a.raw(), &plan.a.layout, f64 ? static_cast<const void*>(&beta64) : &beta32,
                       op.c.raw(), &plan.c.layout, op.c.raw(), &plan.c.layout, &plan.algorithm, s.workspace,
                       kWorkspaceBytes, s.device.stream()),
        "cublasLtMatmul");
  return true;
}

void Matmul::leave_free(int num_sms) {
  state_->free_sms = num_sms;
}

}  // namespace sluice::cuda
