// The blocks that share a sample: one, or a cluster of them, which read each other's memory (compute capability 9.0 and
// later; PTX ISA, "Cluster of Cooperative Thread Arrays").
#pragma once
#include "block.h"

namespace cube {

// The block's dynamic shared memory.
__device__ inline unsigned char* shared_memory() {
#ifdef __CUDACC__
  extern __shared__ uint4 block_memory[];
  return reinterpret_cast<unsigned char*>(block_memory);
#else
  return emulation::shared_memory();
#endif
}

namespace {

// Rows of numbers, one for each cell of a sample, one after another.
template <class N>
struct Rows {
  N* first;
  int stride;
  __device__ N* of(int cell) const { return first + int64_t{cell} * stride; }
};

struct OneBlock {
  static constexpr bool compiles = true;

  __device__ static int size(const Layout&) { return 1; }
  // Its part of a sample's cells.
  __device__ static int first_cell(const Layout&) { return 0; }
  __device__ static int cell_count(const Layout&, int cells) { return cells; }
  // Waits until all threads are here, and shows each what the others have written.
  __device__ static void synchronize() { __syncthreads(); }
  // The same for threads that have all met those of their own block since they wrote.
  __device__ static void join() {}
  // What lies in a block's shared memory where `own` lies in this one's.
  template <class N>
  __device__ static N* in_block(int, N* own) {
    return own;
  }
  // Those of all blocks, each of which has its cells' at its `own`.
  template <class N>
  __device__ static Rows<N> rows(const Layout&, N* own, bool, int stride) {
    return {own, stride};
  }
};

struct Cluster {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr bool compiles = false;
#else
  static constexpr bool compiles = true;
#endif

  template <class N>
  struct SpreadRows {
    const Layout& layout;
    N* own;
    bool shared;
    int stride;
    __device__ N* of(int cell) const {
      const int owner = cell >> layout.cells_bits, row = cell - (owner << layout.cells_bits);
      if (shared) return in_block(owner, own) + row * stride;
      const int64_t bytes = (owner - rank(layout)) * layout.slice_bytes;
      return reinterpret_cast<N*>(reinterpret_cast<unsigned char*>(own) + bytes) + row * stride;
    }
  };

  __device__ static int size(const Layout& layout) { return layout.blocks; }
  __device__ static int rank(const Layout& layout) {  // a cluster's blocks follow each other
    return static_cast<int>(blockIdx.x) & (layout.blocks - 1);
  }
  __device__ static int first_cell(const Layout& layout) { return rank(layout) << layout.cells_bits; }
  __device__ static int cell_count(const Layout& layout, int cells) {
    const int rest = cells - first_cell(layout);
    return rest < 0 ? 0 : rest < layout.cells ? rest : layout.cells;
  }
  __device__ static void synchronize() {
#ifdef __CUDACC__
    asm volatile("barrier.cluster.arrive;\n\tbarrier.cluster.wait;" ::: "memory");
#else
    emulation::synchronize_cluster();
#endif
  }
  __device__ static void join() { synchronize(); }
  template <class N>
  __device__ static N* in_block(int rank, N* own) {
#ifdef __CUDACC__
    N* there;
    asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(own), "r"(rank));
    return there;
#else
    const auto offset = reinterpret_cast<unsigned char*>(own) - emulation::shared_memory();
    return reinterpret_cast<N*>(emulation::shared_memory(rank) + offset);
#endif
  }
  template <class N>
  __device__ static SpreadRows<N> rows(const Layout& layout, N* own, bool shared, int stride) {
    return {layout, own, shared, stride};
  }
};

}  // namespace
}  // namespace cube
