// Kernels for the host's half of the CUDA backend that run nothing here: what each would be launched with is handed to
// Python (tests/cuda/compiled.py), which runs what nvcc compiled.
#include <pybind11/pybind11.h>

#include <string>

#include "../cuda/kernels.h"

namespace py = pybind11;

namespace cube {
namespace {

template <class Launch>
cudaError_t hand_over(const std::string& kernel, Storage storage, const Launch& launch, const Grid& grid) {
  static const char* const names[] = {"float64", "float32", "bfloat16", "float16"};
  const char* bytes = reinterpret_cast<const char*>(&launch);
  py::module_::import("tests.cuda.compiled")
      .attr("run_kernel")(kernel, names[static_cast<int>(storage)], grid.blocks, grid.cluster, block_threads,
                          grid.shared_bytes, py::bytes(bytes, sizeof launch));
  return cudaSuccess;
}

// The choices of storage.cu, as they stand in the names of its kernels.
const char* products(Storage storage, bool tf32) {
  return storage != Storage::float32 ? "Half" : tf32 ? "Tf32" : "Ieee";
}
// A rollout's kernel in either direction.
std::string rollout(const char* direction, Storage storage, const Grid& grid, bool tf32) {
  return std::string(direction) + "I.*" + products(storage, tf32) + ".*" + (grid.cluster > 1 ? "Cluster" : "OneBlock");
}
const char* width(const PerceptionLaunch& launch) { return launch.plan.channels % packet == 0 ? "Li4E" : "Li1E"; }

template <Storage s>
const Kernels handed_over = {
    [](const PackLaunch& launch, const Grid& grid) { return hand_over("packI", s, launch, grid); },
    [](const ForwardLaunch& launch, const Grid& grid, bool tf32) {
      return hand_over(rollout("forward", s, grid, tf32), s, launch, grid);
    },
    [](const BackwardLaunch& launch, const Grid& grid, bool tf32) {
      return hand_over(rollout("backward", s, grid, tf32), s, launch, grid);
    },
    [](const CollectLaunch& launch, const Grid& grid) { return hand_over("collectI", s, launch, grid); },
    [](const PerceptionLaunch& launch, const Grid& grid) {
      return hand_over(std::string("perceive_allI.*") + width(launch), s, launch, grid);
    },
    [](const PerceptionLaunch& launch, const Grid& grid) {
      return hand_over(std::string("adjoint_allI.*") + width(launch), s, launch, grid);
    },
    [](const PerceptionLaunch& launch, const Grid& grid) {
      return hand_over(std::string("bank_gradientI.*") + width(launch), s, launch, grid);
    },
    [](const PerceptionLaunch& launch, const Grid& grid) { return hand_over("collect_bankI", s, launch, grid); },
};

}  // namespace

const Kernels float32_kernels = handed_over<Storage::float32>;
const Kernels bfloat16_kernels = handed_over<Storage::bfloat16>;
const Kernels float16_kernels = handed_over<Storage::float16>;

}  // namespace cube
