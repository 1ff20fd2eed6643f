// A block of threads, and how it shares work.
#pragma once
#include <cuda_runtime.h>

namespace cube {

constexpr int block_threads = 256;
constexpr int warp_threads = 32;
constexpr int block_warps = block_threads / warp_threads;
// Of a backward pass: its scratch grows with them, and the order of its sums depends on them.
constexpr int most_blocks = 512;

namespace {

// Calls visit(i) for every i below `count`, each by one thread.
template <class Visit>
__device__ inline void for_each(int count, Visit&& visit) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += block_threads) visit(i);
}

}  // namespace
}  // namespace cube
