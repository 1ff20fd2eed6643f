// The resident rollout and its backward pass: a group of blocks takes sample after sample through all steps.
#pragma once
#include "gradient.h"

namespace cube {
namespace {

// Of a sample's change in a step, and of its state: squared sizes.
struct Movement {
  double change, size;
};

// Begins and ends between barriers of the group.
template <class T, class Group>
__device__ inline bool has_converged(const Block<T, Group>& block, double tolerance) {
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
  Group::synchronize();
  Movement total{0, 0};
  for (int rank = 0; rank < Group::size(block.layout); ++rank) {
    const Movement* of_block = Group::in_block(rank, of_warps);
    for (int warp = 0; warp < block_warps; ++warp) {
      total.change += of_block[warp].change;
      total.size += of_block[warp].size;
    }
  }
  Group::synchronize();
  return sqrt(total.change) <= tolerance * sqrt(total.size);
}

// Copies a state, padding and all.
template <class T, class Group>
__device__ inline void copy_state(const Block<T, Group>& block, const T* from, T* to) {
  for_each(block.cells * block.packets,
           [&](int i) { store<packet>(to + i * packet, load<packet>(from + i * packet)); });
}

// All steps of one sample.
template <class Products, class T, class Group>
__device__ void sample_forward(const ForwardCall& call, Block<T, Group>& block, const Sample<T, Group>& sample) {
  const Schedule& schedule = call.schedule;
  sample.read(call.state, 0, block.state);
  Group::synchronize();
  int64_t step = 0;
  for (bool converged = false; step < schedule.steps && !converged; ++step) {
    if (call.checkpoints != nullptr && step > 0 && step % schedule.checkpoint_every == 0) {
      sample.write(block.state, call.checkpoints, step / schedule.checkpoint_every - 1);
    }
    advance<Products>(block, sample, step);
    converged = schedule.tolerance >= 0 && has_converged(block, schedule.tolerance);
    if (block.layout.next.shared) {
      T* const old = block.state;
      block.state = block.next;
      block.next = old;
    } else {
      copy_state(block, block.next, block.state);
      Group::synchronize();
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
  if (call.taken != nullptr && threadIdx.x == 0 && block.first == 0) call.taken[sample.index] = step;
}

// Calls visit(index) for every sample of the group's.
template <class Group, class Visit>
__device__ inline void for_each_sample(const Common& call, Visit&& visit) {
  const int size = Group::size(call.layout);
  for (int64_t index = blockIdx.x / size; index < call.schedule.batch; index += gridDim.x / size) visit(index);
}

template <class T, class Products, class Group>
__device__ void samples_forward(const ForwardLaunch& launch) {
  Block<T, Group> block(launch.common);
  stage_weights(block);
  for_each_sample<Group>(launch.common, [&](int64_t index) {
    sample_forward<Products>(launch.call, block, Sample<T, Group>{block, index});
    __syncthreads();
  });
}

template <class T, class Products, class Group>
__global__ void __launch_bounds__(block_threads, 1) forward(const __grid_constant__ ForwardLaunch launch) {
  if constexpr (Group::compiles) samples_forward<T, Products, Group>(launch);
}

// The backward pass of one sample; `gradients.weights` is added to.
template <class Products, class T, class Group>
__device__ void sample_backward(const BackwardLaunch& launch, Block<T, Group>& block, const Sample<T, Group>& sample,
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
    Group::synchronize();
    copy_state(block, block.state, segment);
    block.next = reinterpret_cast<T*>(gradients.state);
    for (int64_t step = start; step < end - unreplayed; ++step) {
      if (can_die) block.living = lives + (step - start) * block.cells;
      advance<Products>(block, sample, step);
      if (step + 1 == end) break;
      copy_state(block, block.next, block.state);
      copy_state(block, block.next, segment + (step + 1 - start) * state_size);
      Group::synchronize();
    }
    for (int64_t step = end - 1; step >= start; --step) {
      copy_state(block, segment + (step - start) * state_size, block.state);
      if (can_die) block.living = lives + (step - start) * block.cells;
      Group::synchronize();
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

// All samples of the group's.
template <class T, class Products, class Group>
__device__ void samples_backward(const BackwardLaunch& launch) {
  const BackwardCall& call = launch.call;
  const Schedule& schedule = launch.common.schedule;
  Block<T, Group> block(launch.common);
  const Layout& layout = block.layout;
  const Gradients gradients{
      block.template at<float>(layout.gradient),         block.template at<float>(layout.other_gradient),
      block.template at<float>(layout.percept_gradient), block.template at<float>(layout.drive_gradient),
      block.template at<float>(layout.weight_gradient),  block.template at<float>(layout.slopes)};
  const int drive_size = block.cells * block.widths.drive, drive = block.plan.drive;
  stage_weights(block);
  fill_zero(gradients.weights, launch.gradients.size);
  if (schedule.shared_drive) fill_zero(gradients.drive, drive_size);
  for_each_sample<Group>(launch.common, [&](int64_t index) {
    const Sample<T, Group> sample{block, index};
    if (!schedule.shared_drive) fill_zero(gradients.drive, drive_size);
    __syncthreads();
    sample_backward<Products>(launch, block, sample, gradients);
    __syncthreads();
    if (!schedule.shared_drive) {
      T* to = static_cast<T*>(call.drive_gradient) + (index * block.plan.cells + block.first) * drive;
      for_each(block.cells * drive,
               [&](int i) { to[i] = narrowed<T>(gradients.drive[i / drive * block.widths.drive + i % drive]); });
    }
  });
  if (layout.weight_gradient.shared) {
    float* result = block.template at<float>(layout.result);
    for_each(launch.gradients.size, [&](int i) { result[i] = gradients.weights[i]; });
  }
}

template <class T, class Products, class Group>
__global__ void __launch_bounds__(block_threads, 1) backward(const __grid_constant__ BackwardLaunch launch) {
  if constexpr (Group::compiles) samples_backward<T, Products, Group>(launch);
}

}  // namespace
}  // namespace cube
