// The kernels of one storage: CUBE_STORAGE_TYPE holds the numbers, CUBE_STORAGE is its name.
#include "batch_perception.h"
#include "rollout.h"
#include "weights.h"

namespace cube {
namespace {

using T = CUBE_STORAGE_TYPE;

template <class Launch>
cudaError_t start(void (*kernel)(Launch), const Launch& launch, const Grid& grid) {
  const auto bytes = static_cast<int>(grid.shared_bytes);
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(block_threads);
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = grid.stream;
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(grid.cluster), 1, 1};
  config.attrs = &cluster;
  config.numAttrs = grid.cluster > 1 ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, launch);
}

// Half-width operands are what tensor cores take exactly, so there is no choice.
using Exact = std::conditional_t<std::is_same_v<T, float>, Ieee, Half<T>>;
using Rounded = std::conditional_t<std::is_same_v<T, float>, Tf32, Half<T>>;

template <class Group>
cudaError_t start_forward(const ForwardLaunch& launch, const Grid& grid, bool tf32) {
  return start(tf32 ? forward<T, Rounded, Group> : forward<T, Exact, Group>, launch, grid);
}

template <class Group>
cudaError_t start_backward(const BackwardLaunch& launch, const Grid& grid, bool tf32) {
  return start(tf32 ? backward<T, Rounded, Group> : backward<T, Exact, Group>, launch, grid);
}

// Kernels of whole packets where the channels make such.
template <auto of_packets, auto of_numbers>
cudaError_t start_perception(const PerceptionLaunch& launch, const Grid& grid) {
  return start(launch.plan.channels % packet == 0 ? of_packets : of_numbers, launch, grid);
}

}  // namespace

const Kernels CUBE_STORAGE = {
    [](const PackLaunch& launch, const Grid& grid) { return start(pack<T>, launch, grid); },
    [](const ForwardLaunch& launch, const Grid& grid, bool tf32) {
      return (grid.cluster > 1 ? start_forward<Cluster> : start_forward<OneBlock>)(launch, grid, tf32);
    },
    [](const BackwardLaunch& launch, const Grid& grid, bool tf32) {
      return (grid.cluster > 1 ? start_backward<Cluster> : start_backward<OneBlock>)(launch, grid, tf32);
    },
    [](const CollectLaunch& launch, const Grid& grid) { return start(collect<T>, launch, grid); },
    start_perception<perceive_all<T, packet>, perceive_all<T, 1>>,
    start_perception<adjoint_all<T, packet>, adjoint_all<T, 1>>,
    start_perception<bank_gradient<T, packet>, bank_gradient<T, 1>>,
    [](const PerceptionLaunch& launch, const Grid& grid) { return start(collect_bank<T>, launch, grid); },
};

}  // namespace cube
