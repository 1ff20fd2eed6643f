#include "launch.h"

#include <algorithm>
#include <stdexcept>

#include "kernels.h"

namespace cube {
namespace {

constexpr int least_capability = 8;
constexpr int64_t alignment = 16;

std::string reason(cudaError_t error) {
  return std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
}

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next call is not to blame
  throw std::runtime_error("cube_kernels: CUDA refused a launch: " + reason(error));
}

// The current device becomes the caller's, and is the one from before again at the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_));
    if (device != before_) check(cudaSetDevice(device));
    changed_ = device != before_;
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

const Kernels& kernels_of(Storage storage) {
  switch (storage) {
    case Storage::bfloat16: return bfloat16_kernels;
    case Storage::float16: return float16_kernels;
    case Storage::float32: return float32_kernels;
    case Storage::float64: break;
  }
  throw std::invalid_argument("cube_kernels: the CUDA kernels compute in float32, and the storage is float64");
}

int64_t packed_bytes(const Plan& plan, Storage storage) {
  const int number = storage_bytes(storage);
  return round_up(int64_t{WeightLayout(plan, Widths(plan), number).size} * number, alignment);
}

int64_t samples_at_once(int64_t batch) { return std::min<int64_t>(batch, most_samples); }

// Blocks for so many small pieces of work.
int64_t blocks_for(int64_t count) {
  return std::clamp<int64_t>((count + block_threads - 1) / block_threads, 1, 1 << 16);
}

int64_t segment_of(const Schedule& schedule) { return std::min(schedule.checkpoint_every, schedule.steps); }

int64_t blocks_of(const Schedule& schedule, const Layout& layout) {
  return samples_at_once(schedule.batch) * layout.blocks;
}

// The packed weights and a slice for each block.
int64_t scratch_bytes(const Plan& plan, const Schedule& schedule, const Layout& layout) {
  return packed_bytes(plan, schedule.storage) + blocks_of(schedule, layout) * layout.slice_bytes;
}

Grid grid_of(int64_t blocks, const Execution& execution) {
  return {blocks, 1, 0, static_cast<cudaStream_t>(execution.stream)};
}

Grid grid_of(const Schedule& schedule, const Layout& layout, const Execution& execution) {
  return {blocks_of(schedule, layout), layout.blocks, layout.shared_bytes, static_cast<cudaStream_t>(execution.stream)};
}

// Packs the weights at the beginning of the scratch.
template <class Call>
Common prepare(const Plan& plan, const Tables& tables, const Call& call, const Layout& layout,
               const Execution& execution) {
  const Storage storage = call.schedule.storage;
  const Widths widths(plan);
  const WeightLayout weights(plan, widths, storage_bytes(storage));
  const RuleWeights& w = call.weights;
  check(
      kernels_of(storage).pack(PackLaunch{plan,
                                          widths,
                                          weights,
                                          {w.bank, w.hidden_weight, w.hidden_bias, w.head_weight, w.head_bias, w.rate},
                                          execution.scratch},
                               grid_of(blocks_for(weights.size), execution)));
  return {plan,
          tables,
          widths,
          weights,
          layout,
          call.schedule,
          call.weights.rate != nullptr,
          execution.scratch,
          call.drive,
          call.write_mask,
          static_cast<unsigned char*>(execution.scratch) + packed_bytes(plan, storage)};
}

void launch_perception(cudaError_t (*Kernels::*kernel)(const PerceptionLaunch&, const Grid&), int64_t blocks,
                       const PerceptionLaunch& launch, const Execution& execution) {
  check((kernels_of(launch.call.storage).*kernel)(launch, grid_of(blocks, execution)));
}

int64_t packets_of(const Plan& plan, int64_t batch) {
  return batch * plan.cells * (plan.channels % packet == 0 ? plan.channels / packet : plan.channels);
}

}  // namespace

std::string device_problem(int device) {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) cudaGetLastError();
  if (driver == 0) return "no device: this machine has no NVIDIA driver";
  if (error == cudaErrorInsufficientDriver) {
    return "the NVIDIA driver is too old: it knows CUDA " + version(driver) + ", and this module was built with CUDA " +
           version(CUDART_VERSION);
  }
  if (error != cudaSuccess) return "no device: " + reason(error);
  if (device >= count) return "no device " + std::to_string(device) + ": there are " + std::to_string(count);
  const int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  const int minor = attribute(cudaDevAttrComputeCapabilityMinor, device);
  if (major < least_capability) {
    return "the GPU is too old: it has compute capability " + std::to_string(major) + "." + std::to_string(minor) +
           ", and the kernels need " + std::to_string(least_capability) + ".0";
  }
  return "";
}

std::string device_report() {
  const std::string problem = device_problem(0);
  if (!problem.empty()) return problem;
  int driver = 0, count = 0;
  check(cudaDriverGetVersion(&driver));
  check(cudaGetDeviceCount(&count));
  std::string report = "driver for CUDA " + version(driver);
  for (int device = 0; device < count; ++device) {
    const Limits has = limits(device);
    report += "; device " + std::to_string(device) + ": sm_" +
              std::to_string(attribute(cudaDevAttrComputeCapabilityMajor, device)) +
              std::to_string(attribute(cudaDevAttrComputeCapabilityMinor, device)) + ", " +
              std::to_string(has.shared_bytes) + " bytes of shared memory a block" +
              (has.blocks > 1 ? ", clusters" : ", no clusters");
  }
  return report;
}

Limits limits(int device) {
  return {attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          attribute(cudaDevAttrClusterLaunch, device) != 0 ? most_cluster_blocks : 1};
}

int64_t forward_scratch_bytes(const Plan& plan, const Schedule& schedule, const Limits& limits) {
  return scratch_bytes(plan, schedule, forward_layout(plan, schedule.storage, limits));
}

int64_t backward_scratch_bytes(const Plan& plan, const Schedule& schedule, const Limits& limits) {
  return scratch_bytes(plan, schedule, backward_layout(plan, schedule.storage, segment_of(schedule), limits));
}

int64_t bank_gradient_scratch_bytes(const Plan& plan, int64_t batch) {
  return samples_at_once(batch) * plan.filters * plan.offset_count * plan.channels *
         static_cast<int64_t>(sizeof(float));
}

void launch_forward(const Plan& plan, const Tables& tables, const ForwardCall& call, const Execution& execution) {
  if (call.schedule.batch == 0) return;
  const DeviceGuard guard(execution.device);
  const Storage storage = call.schedule.storage;
  const Layout layout = forward_layout(plan, storage, limits(execution.device));
  const ForwardLaunch launch{prepare(plan, tables, call, layout, execution), call};
  check(kernels_of(storage).forward(launch, grid_of(call.schedule, layout, execution), execution.tf32));
}

void launch_backward(const Plan& plan, const Tables& tables, const BackwardCall& call, const Execution& execution) {
  const DeviceGuard guard(execution.device);
  const Schedule& schedule = call.schedule;
  const Kernels& kernels = kernels_of(schedule.storage);
  const Layout layout = backward_layout(plan, schedule.storage, segment_of(schedule), limits(execution.device));
  const Common common = prepare(plan, tables, call, layout, execution);
  const WeightLayout gradients(plan, common.widths, sizeof(float));
  const Grid grid = grid_of(schedule, layout, execution);
  if (grid.blocks > 0) check(kernels.backward(BackwardLaunch{common, gradients, call}, grid, execution.tf32));
  const RuleGradients& g = call.gradients;
  const CollectLaunch collect{common,
                              gradients,
                              static_cast<int>(grid.blocks),
                              {g.bank, g.hidden_weight, g.hidden_bias, g.head_weight, g.head_bias, g.rate},
                              schedule.shared_drive ? call.drive_gradient : nullptr};
  check(kernels.collect(collect, grid_of(blocks_for(gradients.size), execution)));
}

void launch_perceive(const Plan& plan, const Tables& tables, const PerceptionCall& call, const Execution& execution) {
  if (call.batch == 0) return;
  const DeviceGuard guard(execution.device);
  launch_perception(&Kernels::perceive, blocks_for(packets_of(plan, call.batch)), {plan, tables, call, nullptr},
                    execution);
}

void launch_perceive_adjoint(const Plan& plan, const Tables& tables, const PerceptionCall& call,
                             const Execution& execution) {
  if (call.batch == 0) return;
  const DeviceGuard guard(execution.device);
  launch_perception(&Kernels::perceive_adjoint, blocks_for(packets_of(plan, call.batch)), {plan, tables, call, nullptr},
                    execution);
}

void launch_bank_gradient(const Plan& plan, const Tables& tables, const PerceptionCall& call,
                          const Execution& execution) {
  const DeviceGuard guard(execution.device);
  const PerceptionLaunch launch{plan, tables, call, static_cast<float*>(execution.scratch)};
  if (call.batch > 0) launch_perception(&Kernels::bank_gradient, samples_at_once(call.batch), launch, execution);
  const int64_t size = int64_t{plan.filters} * plan.offset_count * plan.channels;
  launch_perception(&Kernels::collect_bank, blocks_for(size), launch, execution);
}

}  // namespace cube
