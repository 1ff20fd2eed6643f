// How a block of threads, or a whole grid, shares work.
#pragma once
#include <cuda_runtime.h>

#include "layout.h"

namespace cube {
namespace {

// Calls visit(i) for every i below `count`, each by one thread.
template <class Visit>
__device__ inline void for_each(int count, Visit&& visit) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += block_threads) visit(i);
}

__device__ inline void fill_zero(float* numbers, int count) {
  for_each(count, [&](int i) { numbers[i] = 0; });
}

// Calls visit(i) for every i below `count`, each by one thread of the grid.
template <class Visit>
__device__ inline void for_each_of_grid(int64_t count, Visit&& visit) {
  const int64_t threads = int64_t{gridDim.x} * block_threads;
  for (int64_t i = int64_t{blockIdx.x} * block_threads + threadIdx.x; i < count; i += threads) visit(i);
}

}  // namespace
}  // namespace cube
