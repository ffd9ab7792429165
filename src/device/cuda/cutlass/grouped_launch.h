// A grouped product of CUTLASS for sm_90a as one type, and its launch on problems that lie on the device. A block per
// SM walks the tiles of all experts; experts without rows have none.
#pragma once

// An assert in device code makes ptxas wait after every wgmma.
#ifndef NDEBUG
#error "to be compiled with NDEBUG"
#endif

#include <cutlass/cutlass.h>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include <array>
#include <bit>
#include <string_view>

#include "device/cuda/device.h"
#include "device/cuda/grouped_problems.h"

namespace sluice::cuda {

// d = a b, or d += a b if Accumulate; a and b in bf16, sums in f32. Layouts are those of the matrices as the product
// has them: ColumnMajor is a transposed one of ours.
template <class LayoutA, class LayoutB, class D, bool Accumulate>
struct GroupedProduct {
  using Element = cutlass::bfloat16_t;
  using Tile = cute::Shape<cute::_128, cute::_256, cute::_64>;
  using Cluster = cute::Shape<cute::_2, cute::_1, cute::_1>;
  using Sizes = cute::Shape<int, int, int>;
  using RowMajor = cutlass::layout::RowMajor;
  using C = std::conditional_t<Accumulate, D, void>;
  static constexpr int kPiece = 16 / sizeof(Element);
  static constexpr int kPieceD = 16 / sizeof(D);

  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, C, RowMajor*, kPieceD, D, RowMajor*, kPieceD,
      cutlass::epilogue::PtrArrayTmaWarpSpecializedCooperative>::CollectiveOp;
  static constexpr int kEpilogueBytes = sizeof(typename Epilogue::SharedStorage);
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, LayoutA*, kPiece, Element, LayoutB*, kPiece, float,
      Tile, Cluster, cutlass::gemm::collective::StageCountAutoCarveout<kEpilogueBytes>,
      cutlass::gemm::KernelPtrArrayTmaWarpSpecializedCooperative>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<cutlass::gemm::GroupProblemShape<Sizes>, Mainloop, Epilogue>;
  using Adapter = cutlass::gemm::device::GemmUniversalAdapter<Kernel>;
  using StrideA = typename Kernel::InternalStrideA;
  using StrideB = typename Kernel::InternalStrideB;
  using StrideD = typename Kernel::InternalStrideD;

  // What grouped_problems.cu writes is what CUTLASS reads.
  static_assert(std::bit_cast<std::array<int, 3>>(Sizes{1, 2, 3}) == std::array{1, 2, 3});
  static_assert(sizeof(StrideA) == sizeof(int64_t) && sizeof(StrideB) == sizeof(int64_t));
  static_assert(sizeof(StrideD) == sizeof(int64_t));

  static void run(Device& device, const GroupedProblems& problems, std::string_view name);
};

inline bool has_grouped_kernels(const Device& device) {
  // Two operands, two halves of the result, and the result to add to.
  constexpr int kMapsPerSm = 5, kMapBytes = 128, kSlack = 512;
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.ordinal()), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.ordinal()), "cudaDeviceGetAttribute");
  return major == 9 && minor == 0 && device.num_sms() * kMapsPerSm * kMapBytes + kSlack <= gpu::kGroupedTensorMapBytes;
}

template <class LayoutA, class LayoutB, class D, bool Accumulate>
void GroupedProduct<LayoutA, LayoutB, D, Accumulate>::run(Device& device, const GroupedProblems& problems,
                                                          std::string_view name) {
  typename Adapter::Arguments arguments{};
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
  // Without sizes on the host the grid is one block per SM.
  arguments.problem_shape = {static_cast<int>(problems.num_experts), reinterpret_cast<Sizes*>(problems.sizes), nullptr};
  arguments.mainloop.ptr_A = reinterpret_cast<const Element**>(problems.a);
  arguments.mainloop.dA = reinterpret_cast<StrideA*>(problems.a_stride);
  arguments.mainloop.ptr_B = reinterpret_cast<const Element**>(problems.b);
  arguments.mainloop.dB = reinterpret_cast<StrideB*>(problems.b_stride);
  arguments.epilogue.thread.alpha = 1;
  arguments.epilogue.thread.beta = Accumulate ? 1 : 0;
  if constexpr (Accumulate) {
    arguments.epilogue.ptr_C = const_cast<const D**>(reinterpret_cast<D**>(problems.d));
    arguments.epilogue.dC = reinterpret_cast<StrideD*>(problems.d_stride);
  }
  arguments.epilogue.ptr_D = reinterpret_cast<D**>(problems.d);
  arguments.epilogue.dD = reinterpret_cast<StrideD*>(problems.d_stride);
  arguments.hw_info.device_id = device.ordinal();
  arguments.hw_info.sm_count = device.num_sms();

  require(Adapter::get_workspace_size(arguments) <= size_t{gpu::kGroupedTensorMapBytes}, "{}: CUTLASS wants {} bytes",
          name, Adapter::get_workspace_size(arguments));
  const auto succeed = [&](cutlass::Status status) {
    if (status == cutlass::Status::kSuccess) return;
    check(cudaGetLastError(), std::string(name).c_str());
    throw runtime_failure("{}: CUTLASS: {}", name, cutlassGetStatusString(status));
  };
  Adapter adapter;
  succeed(adapter.initialize(arguments, problems.workspace, device.stream()));
  succeed(adapter.run(device.stream()));
}

}  // namespace sluice::cuda
