// A block of threads, and how it shares work.
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

}  // namespace
}  // namespace cube
