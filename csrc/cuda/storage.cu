// The kernels of one storage: CUBE_STORAGE_TYPE holds the numbers, CUBE_STORAGE is its name.
#include "gradient.h"

namespace cube {
namespace {

using T = CUBE_STORAGE_TYPE;

// The order of the tensors of RuleWeights.
enum Tensor {
  bank_tensor,
  hidden_weight_tensor,
  hidden_bias_tensor,
  head_weight_tensor,
  head_bias_tensor,
  rate_tensor
};

// Where an element of the packed weights comes from: one of those tensors and its index there, or nowhere.
struct Source {
  Tensor tensor;
  int64_t index;  // negative: padding
};

__device__ inline Source source_of(const Plan& plan, const Widths& widths, const WeightLayout& at, int element) {
  const int channels = plan.channels, stride = widths.stride;
  const auto channel_row = [&](Tensor tensor, int i, int64_t rows) {
    const int row = i / stride, c = i % stride;
    return Source{tensor, row < rows && c < channels ? int64_t{row} * channels + c : -1};
  };
  // The dense column of a padded input.
  const auto input = [&](int column) {
    const int vectors = widths.own + widths.percepts;
    if (column >= vectors) return column - vectors < plan.drive ? vectors / stride * channels + column - vectors : -1;
    return column % stride < channels ? column / stride * channels + column % stride : -1;
  };
  const auto matrix = [&](Tensor tensor, int64_t row, int column, int64_t columns) {
    return Source{tensor, row >= 0 && column >= 0 && column < columns ? row * columns + column : -1};
  };
  const auto head = [&](int row) { return channel_row(head_bias_tensor, row, head_count(plan)).index; };
  const auto hidden = [&](int row) { return row < plan.hidden ? row : -1; };
  if (element >= at.rate) return channel_row(rate_tensor, element - at.rate, 1);
  if (element >= at.head_bias) return {head_bias_tensor, head(element - at.head_bias)};
  if (element >= at.head_weight) {
    const int i = element - at.head_weight;
    return matrix(head_weight_tensor, head(i / at.head_stride), i % at.head_stride, plan.hidden);
  }
  if (element >= at.hidden_bias) return {hidden_bias_tensor, hidden(element - at.hidden_bias)};
  if (element >= at.hidden_weight) {
    const int i = element - at.hidden_weight;
    return matrix(hidden_weight_tensor, hidden(i / at.hidden_stride), input(i % at.hidden_stride), plan.inputs);
  }
  return channel_row(bank_tensor, element, int64_t{plan.filters} * plan.offset_count);
}

// Calls visit(i) for every i below `count`, each by one thread of the grid.
template <class Visit>
__device__ inline void for_each_of_grid(int64_t count, Visit&& visit) {
  const int64_t threads = int64_t{gridDim.x} * block_threads;
  for (int64_t i = int64_t{blockIdx.x} * block_threads + threadIdx.x; i < count; i += threads) visit(i);
}

__global__ void __launch_bounds__(block_threads, 1) pack(const __grid_constant__ PackLaunch launch) {
  for_each_of_grid(launch.weights.size, [&](int64_t i) {
    const Source source = source_of(launch.plan, launch.widths, launch.weights, static_cast<int>(i));
    const T* tensor = static_cast<const T*>(launch.from[source.tensor]);
    static_cast<T*>(launch.to)[i] = tensor != nullptr && source.index >= 0 ? tensor[source.index] : narrowed<T>(0);
  });
}

// Of a sample's change in a step, and of its state: squared sizes.
struct Movement {
  double change, size;
};

__device__ inline bool has_converged(const Block<T>& block, double tolerance) {
  Movement sum{0, 0};
  for_each(block.cells * block.widths.stride, [&](int i) {
    const double before = widened(block.state[i]), moved = widened(block.next[i]) - before;
    sum.change += moved * moved;
    sum.size += before * before;
  });
  for (int distance = warp_threads / 2; distance > 0; distance /= 2) {
    sum.change += __shfl_xor_sync(0xffffffff, sum.change, distance);
    sum.size += __shfl_xor_sync(0xffffffff, sum.size, distance);
  }
  Movement* of_warps = block.at<Movement>(block.layout.movement);
  if (threadIdx.x % warp_threads == 0) of_warps[threadIdx.x / warp_threads] = sum;
  __syncthreads();
  Movement total{0, 0};
  for (int warp = 0; warp < block_warps; ++warp) {
    total.change += of_warps[warp].change;
    total.size += of_warps[warp].size;
  }
  return sqrt(total.change) <= tolerance * sqrt(total.size);
}

// Copies a state, padding and all.
__device__ inline void copy_state(const Block<T>& block, const T* from, T* to) {
  for_each(block.cells * block.packets,
           [&](int i) { store<packet>(to + i * packet, load<packet>(from + i * packet)); });
}

// All steps of one sample.
template <class Products>
__device__ void sample_forward(const ForwardCall& call, Block<T>& block, const Sample<T>& sample) {
  const Schedule& schedule = call.schedule;
  sample.read(call.state, 0, block.state);
  __syncthreads();
  int64_t step = 0;
  for (bool converged = false; step < schedule.steps && !converged; ++step) {
    if (call.checkpoints != nullptr && step > 0 && step % schedule.checkpoint_every == 0) {
      sample.write(block.state, call.checkpoints, step / schedule.checkpoint_every - 1);
    }
    advance<Products>(block, sample, step);
    converged = schedule.tolerance >= 0 && has_converged(block, schedule.tolerance);
    __syncthreads();
    if (block.layout.next.shared) {
      T* const old = block.state;
      block.state = block.next;
      block.next = old;
    } else {
      copy_state(block, block.next, block.state);
      __syncthreads();
    }
    if (schedule.trajectory_every > 0 && (step + 1) % schedule.trajectory_every == 0) {
      sample.write(block.state, call.trajectory, (step + 1) / schedule.trajectory_every - 1);
    }
  }
  if (schedule.trajectory_every > 0) {  // a sample that has stopped stays as it is
    for (int64_t kept = step / schedule.trajectory_every; kept < schedule.steps / schedule.trajectory_every; ++kept) {
      sample.write(block.state, call.trajectory, kept);
    }
  }
  sample.write(block.state, call.result, 0);
  if (call.taken != nullptr && threadIdx.x == 0) call.taken[sample.index] = step;
}

template <class Products>
__global__ void __launch_bounds__(block_threads, 1) forward(const __grid_constant__ ForwardLaunch launch) {
  Block<T> block(launch.common);
  stage_weights(block);
  for (int64_t index = blockIdx.x; index < launch.common.schedule.batch; index += gridDim.x) {
    sample_forward<Products>(launch.call, block, Sample<T>{block, index});
    __syncthreads();
  }
}

__device__ inline void fill_zero(float* numbers, int count) {
  for_each(count, [&](int i) { numbers[i] = 0; });
}

// The backward pass of one sample; `gradients.weights` is added to.
template <class Products>
__device__ void sample_backward(const BackwardLaunch& launch, Block<T>& block, const Sample<T>& sample,
                                Gradients gradients) {
  const BackwardCall& call = launch.call;
  const Schedule& schedule = launch.common.schedule;
  const int64_t steps = call.taken != nullptr ? call.taken[sample.index] : schedule.steps;
  const int64_t every = call.trajectory_gradient != nullptr ? schedule.trajectory_every : 0;
  const bool can_die = block.plan.alive_channel >= 0;
  // The last step of a segment is replayed only to learn which cells died in it.
  const int64_t unreplayed = can_die ? 0 : 1;
  const int64_t state_size = int64_t{block.cells} * block.widths.stride;
  T* const segment = block.at<T>(block.layout.segment);
  uint8_t* const lives = block.at<uint8_t>(block.layout.segment_lives);
  sample.read(call.result_gradient, 0, gradients.next);
  // The states of the trajectory from the last step on are the result.
  int64_t slice = every > 0 ? (steps + every - 1) / every : 1;
  for (slice = slice < 1 ? 1 : slice; every > 0 && slice <= schedule.steps / every; ++slice) {
    sample.add(call.trajectory_gradient, slice - 1, gradients.next);
  }
  for (int64_t end = steps; end > 0;) {
    const int64_t start = (end - 1) / schedule.checkpoint_every * schedule.checkpoint_every;
    sample.read(start == 0 ? call.state : call.checkpoints, start == 0 ? 0 : start / schedule.checkpoint_every - 1,
                block.state);
    __syncthreads();
    copy_state(block, block.state, segment);
    block.next = reinterpret_cast<T*>(gradients.state);
    for (int64_t step = start; step < end - unreplayed; ++step) {
      if (can_die) block.living = lives + (step - start) * block.cells;
      advance<Products>(block, sample, step);
      if (step + 1 == end) break;
      copy_state(block, block.next, block.state);
      copy_state(block, block.next, segment + (step + 1 - start) * state_size);
      __syncthreads();
    }
    for (int64_t step = end - 1; step >= start; --step) {
      copy_state(block, segment + (step - start) * state_size, block.state);
      if (can_die) block.living = lives + (step - start) * block.cells;
      __syncthreads();
      step_gradient<Products>(block, launch.gradients, sample, step, gradients);
      if (every > 0 && step > 0 && step % every == 0) {
        sample.add(call.trajectory_gradient, step / every - 1, gradients.state);
        __syncthreads();
      }
      float* const old = gradients.next;
      gradients.next = gradients.state;
      gradients.state = old;
    }
    end = start;
  }
  __syncthreads();
  sample.write(gradients.next, call.state_gradient, 0);
}

template <class Products>
__global__ void __launch_bounds__(block_threads, 1) backward(const __grid_constant__ BackwardLaunch launch) {
  const BackwardCall& call = launch.call;
  const Schedule& schedule = launch.common.schedule;
  Block<T> block(launch.common);
  const Layout& layout = block.layout;
  const Gradients gradients{block.at<float>(layout.gradient),         block.at<float>(layout.other_gradient),
                            block.at<float>(layout.percept_gradient), block.at<float>(layout.drive_gradient),
                            block.at<float>(layout.weight_gradient),  block.at<float>(layout.slopes)};
  const int drive_size = block.cells * block.widths.drive, drive = block.plan.drive;
  stage_weights(block);
  fill_zero(gradients.weights, launch.gradients.size);
  if (schedule.shared_drive) fill_zero(gradients.drive, drive_size);
  for (int64_t index = blockIdx.x; index < schedule.batch; index += gridDim.x) {
    const Sample<T> sample{block, index};
    if (!schedule.shared_drive) fill_zero(gradients.drive, drive_size);
    __syncthreads();
    sample_backward<Products>(launch, block, sample, gradients);
    __syncthreads();
    if (!schedule.shared_drive) {
      T* to = static_cast<T*>(call.drive_gradient) + index * block.cells * drive;
      for_each(block.cells * drive,
               [&](int i) { to[i] = narrowed<T>(gradients.drive[i / drive * block.widths.drive + i % drive]); });
    }
  }
  if (layout.weight_gradient.shared) {
    float* result = block.at<float>(layout.result);
    for_each(launch.gradients.size, [&](int i) { result[i] = gradients.weights[i]; });
  }
}

__global__ void __launch_bounds__(block_threads, 1) collect(const __grid_constant__ CollectLaunch launch) {
  const Common& common = launch.common;
  const Plan& plan = common.plan;
  const Widths& widths = common.widths;
  // In the order of the blocks, which the batch alone decides.
  const auto sum = [&](const Place& place, int64_t element) {
    float sum = 0;
    const unsigned char* from = common.slices + place.offset;
    for (int block = 0; block < launch.blocks; ++block) {
      sum += reinterpret_cast<const float*>(from + block * common.layout.slice_bytes)[element];
    }
    return sum;
  };
  for_each_of_grid(launch.gradients.size, [&](int64_t i) {
    const Source source = source_of(plan, widths, launch.gradients, static_cast<int>(i));
    T* tensor = static_cast<T*>(launch.to[source.tensor]);
    if (tensor == nullptr || source.index < 0) return;
    const float scale = source.tensor == rate_tensor ? static_cast<float>(plan.fire_scale) : 1.0f;
    tensor[source.index] = narrowed<T>(sum(common.layout.result, i) * scale);
  });
  if (launch.shared_drive == nullptr) return;
  for_each_of_grid(plan.cells * plan.drive, [&](int64_t i) {
    const int64_t element = i / plan.drive * widths.drive + i % plan.drive;
    static_cast<T*>(launch.shared_drive)[i] = narrowed<T>(sum(common.layout.drive_gradient, element));
  });
}

// Calls visit(sample, cell, channel) for every `width` channels of every cell of a batch.
template <int width, class Visit>
__device__ inline void for_each_cell(const PerceptionLaunch& launch, Visit&& visit) {
  const int64_t across = launch.plan.channels / width, cells = launch.plan.cells;
  for_each_of_grid(launch.call.batch * cells * across, [&](int64_t i) {
    const int64_t row = i / across;
    visit(row / cells, static_cast<int>(row % cells), static_cast<int>(i % across) * width);
  });
}

template <int width>
__global__ void __launch_bounds__(block_threads, 2) perceive_all(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int64_t channels = plan.channels, vectors = percept_count(plan);
  for_each_cell<width>(launch, [&](int64_t sample, int cell, int c) {
    T* to = static_cast<T*>(launch.call.result) + (sample * plan.cells + cell) * vectors * channels + c;
    const T* state = static_cast<const T*>(launch.call.state) + sample * plan.cells * channels;
    perceive<width>(plan, launch.tables, state, static_cast<const T*>(launch.call.bank), plan.channels, cell, c,
                    [&](int vector, const Values<width>& values) { store<width>(to + vector * channels, values); });
  });
}

template <int width>
__global__ void __launch_bounds__(block_threads, 2) adjoint_all(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int64_t channels = plan.channels, vectors = percept_count(plan);
  for_each_cell<width>(launch, [&](int64_t sample, int cell, int c) {
    const T* percepts = static_cast<const T*>(launch.call.percepts) + sample * plan.cells * vectors * channels;
    store<width>(static_cast<T*>(launch.call.result) + (sample * plan.cells + cell) * channels + c,
                 perceive_adjoint<width>(plan, launch.tables, percepts, static_cast<const T*>(launch.call.bank),
                                         plan.channels, cell, c));
  });
}

template <int width>
__global__ void __launch_bounds__(block_threads, 2) bank_gradient(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int64_t channels = plan.channels;
  const int across = plan.channels / width, size = plan.filters * plan.offset_count * plan.channels;
  float* sums = launch.slices + int64_t{blockIdx.x} * size;
  fill_zero(sums, size);
  __syncthreads();
  for (int64_t sample = blockIdx.x; sample < launch.call.batch; sample += gridDim.x) {
    const T* state = static_cast<const T*>(launch.call.state) + sample * plan.cells * channels;
    const T* percepts = static_cast<const T*>(launch.call.percepts) + sample * plan.cells * plan.filters * channels;
    for_each(plan.offset_count * across, [&](int i) {
      add_bank_gradient<width>(plan, launch.tables, state, percepts, plan.channels, i / across, i % across * width,
                               sums);
    });
  }
}

__global__ void __launch_bounds__(block_threads, 1) collect_bank(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int64_t size = int64_t{plan.filters} * plan.offset_count * plan.channels;
  for_each_of_grid(size, [&](int64_t i) {
    float sum = 0;
    for (int64_t block = 0; block < launch.call.batch && block < most_blocks; ++block) {
      sum += launch.slices[block * size + i];
    }
    static_cast<T*>(launch.call.result)[i] = narrowed<T>(sum);
  });
}

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
  return cudaLaunchKernelEx(&config, kernel, launch);
}

// Half-width operands are what tensor cores take exactly, so there is no choice.
using Exact = std::conditional_t<std::is_same_v<T, float>, Ieee, Half<T>>;
using Rounded = std::conditional_t<std::is_same_v<T, float>, Tf32, Half<T>>;

cudaError_t start_forward(const ForwardLaunch& launch, const Grid& grid, bool tf32) {
  return start(tf32 ? forward<Rounded> : forward<Exact>, launch, grid);
}

cudaError_t start_backward(const BackwardLaunch& launch, const Grid& grid, bool tf32) {
  return start(tf32 ? backward<Rounded> : backward<Exact>, launch, grid);
}

// Kernels of whole packets where the channels make such.
template <auto of_packets, auto of_numbers>
cudaError_t start_perception(const PerceptionLaunch& launch, const Grid& grid) {
  return start(launch.plan.channels % packet == 0 ? of_packets : of_numbers, launch, grid);
}

}  // namespace

const Kernels CUBE_STORAGE = {
    [](const PackLaunch& launch, const Grid& grid) { return start(pack, launch, grid); },
    start_forward,
    start_backward,
    [](const CollectLaunch& launch, const Grid& grid) { return start(collect, launch, grid); },
    start_perception<perceive_all<packet>, perceive_all<1>>,
    start_perception<adjoint_all<packet>, adjoint_all<1>>,
    start_perception<bank_gradient<packet>, bank_gradient<1>>,
    [](const PerceptionLaunch& launch, const Grid& grid) { return start(collect_bank, launch, grid); },
};

}  // namespace cube
