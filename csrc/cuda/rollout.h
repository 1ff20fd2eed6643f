// The resident rollout and its backward pass: a block takes sample after sample through all steps.
#pragma once
#include "gradient.h"

namespace cube {
namespace {

// Of a sample's change in a step, and of its state: squared sizes.
struct Movement {
  double change, size;
};

template <class T>
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
  Movement* of_warps = block.template at<Movement>(block.layout.movement);
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
template <class T>
__device__ inline void copy_state(const Block<T>& block, const T* from, T* to) {
  for_each(block.cells * block.packets,
           [&](int i) { store<packet>(to + i * packet, load<packet>(from + i * packet)); });
}

// All steps of one sample.
template <class T, class Products>
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

template <class T, class Products>
__global__ void __launch_bounds__(block_threads, 1) forward(const __grid_constant__ ForwardLaunch launch) {
  Block<T> block(launch.common);
  stage_weights(block);
  for (int64_t index = blockIdx.x; index < launch.common.schedule.batch; index += gridDim.x) {
    sample_forward<T, Products>(launch.call, block, Sample<T>{block, index});
    __syncthreads();
  }
}

// The backward pass of one sample; `gradients.weights` is added to.
template <class T, class Products>
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
  T* const segment = block.template at<T>(block.layout.segment);
  uint8_t* const lives = block.template at<uint8_t>(block.layout.segment_lives);
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

template <class T, class Products>
__global__ void __launch_bounds__(block_threads, 1) backward(const __grid_constant__ BackwardLaunch launch) {
  const BackwardCall& call = launch.call;
  const Schedule& schedule = launch.common.schedule;
  Block<T> block(launch.common);
  const Layout& layout = block.layout;
  const Gradients gradients{
      block.template at<float>(layout.gradient),         block.template at<float>(layout.other_gradient),
      block.template at<float>(layout.percept_gradient), block.template at<float>(layout.drive_gradient),
      block.template at<float>(layout.weight_gradient),  block.template at<float>(layout.slopes)};
  const int drive_size = block.cells * block.widths.drive, drive = block.plan.drive;
  stage_weights(block);
  fill_zero(gradients.weights, launch.gradients.size);
  if (schedule.shared_drive) fill_zero(gradients.drive, drive_size);
  for (int64_t index = blockIdx.x; index < schedule.batch; index += gridDim.x) {
    const Sample<T> sample{block, index};
    if (!schedule.shared_drive) fill_zero(gradients.drive, drive_size);
    __syncthreads();
    sample_backward<T, Products>(launch, block, sample, gradients);
    __syncthreads();
    if (!schedule.shared_drive) {
      T* to = static_cast<T*>(call.drive_gradient) + index * block.cells * drive;
      for_each(block.cells * drive,
               [&](int i) { to[i] = narrowed<T>(gradients.drive[i / drive * block.widths.drive + i % drive]); });
    }
  }
  if (layout.weight_gradient.shared) {
    float* result = block.template at<float>(layout.result);
    for_each(launch.gradients.size, [&](int i) { result[i] = gradients.weights[i]; });
  }
}

}  // namespace
}  // namespace cube
