// Perception alone, its adjoint and its gradient in the filters, on states in global memory.
#pragma once
#include "block.h"
#include "kernels.h"
#include "perceive.h"

namespace cube {
namespace {

// Calls visit(sample, cell, channel) for every `width` channels of every cell of a batch.
template <int width, class Visit>
__device__ inline void for_each_cell(const PerceptionLaunch& launch, Visit&& visit) {
  const int64_t across = launch.plan.channels / width, cells = launch.plan.cells;
  for_each_of_grid(launch.call.batch * cells * across, [&](int64_t i) {
    const int64_t row = i / across;
    visit(row / cells, static_cast<int>(row % cells), static_cast<int>(i % across) * width);
  });
}

template <class T>
__device__ inline Rows<const T> states_of(const PerceptionLaunch& launch, int64_t sample) {
  const int row = launch.plan.channels;
  return {static_cast<const T*>(launch.call.state) + sample * launch.plan.cells * row, row};
}

template <class T>
__device__ inline Rows<const T> percepts_of(const PerceptionLaunch& launch, int64_t sample) {
  const int row = percept_count(launch.plan) * launch.plan.channels;
  return {static_cast<const T*>(launch.call.percepts) + sample * launch.plan.cells * row, row};
}

template <class T, int width>
__global__ void __launch_bounds__(block_threads, 2) perceive_all(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int64_t channels = plan.channels, vectors = percept_count(plan);
  for_each_cell<width>(launch, [&](int64_t sample, int cell, int c) {
    T* to = static_cast<T*>(launch.call.result) + (sample * plan.cells + cell) * vectors * channels + c;
    perceive<width>(plan, launch.tables, states_of<T>(launch, sample), static_cast<const T*>(launch.call.bank),
                    plan.channels, cell, c,
                    [&](int vector, const Values<width>& values) { store<width>(to + vector * channels, values); });
  });
}

template <class T, int width>
__global__ void __launch_bounds__(block_threads, 2) adjoint_all(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  for_each_cell<width>(launch, [&](int64_t sample, int cell, int c) {
    store<width>(static_cast<T*>(launch.call.result) + (sample * plan.cells + cell) * plan.channels + c,
                 perceive_adjoint<width>(plan, launch.tables, percepts_of<T>(launch, sample),
                                         static_cast<const T*>(launch.call.bank), plan.channels, cell, c));
  });
}

template <class T, int width>
__global__ void __launch_bounds__(block_threads, 2) bank_gradient(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int across = plan.channels / width, size = plan.filters * plan.offset_count * plan.channels;
  float* sums = launch.slices + int64_t{blockIdx.x} * size;
  fill_zero(sums, size);
  __syncthreads();
  for (int64_t sample = blockIdx.x; sample < launch.call.batch; sample += gridDim.x) {
    for_each(plan.offset_count * across, [&](int i) {
      add_bank_gradient<width>(plan, launch.tables, states_of<T>(launch, sample), percepts_of<T>(launch, sample), 0,
                               static_cast<int>(plan.cells), plan.channels, i / across, i % across * width, sums);
    });
  }
}

template <class T>
__global__ void __launch_bounds__(block_threads, 1) collect_bank(const __grid_constant__ PerceptionLaunch launch) {
  const Plan& plan = launch.plan;
  const int64_t size = int64_t{plan.filters} * plan.offset_count * plan.channels;
  for_each_of_grid(size, [&](int64_t i) {
    float sum = 0;
    for (int64_t block = 0; block < launch.call.batch && block < most_samples; ++block) {
      sum += launch.slices[block * size + i];
    }
    static_cast<T*>(launch.call.result)[i] = narrowed<T>(sum);
  });
}

}  // namespace
}  // namespace cube
