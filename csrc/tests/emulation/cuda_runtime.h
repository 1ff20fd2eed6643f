// What the kernels use of CUDA, on the CPU: the same sources compile with this folder ahead on the include path.
//
// A CUDA thread is a fiber; the threads of a cluster (of one block where a launch names none) take turns at barriers
// and warp-wide operations alone, and clusters run one after another. Before each its blocks' shared memory is filled
// with NaN. Barriers that not all threads reach, blocks that are too large, and more shared memory than was asked for
// are errors. AddressSanitizer sees what lies past a block's shared memory as poisoned; ThreadSanitizer sees every CUDA
// thread as a thread of its own, ordered with others by barriers alone, and neighboring clusters as not ordered at all.
//
// Not emulated: other memory spaces, asynchronous copies, partial warps, streams, time.
#pragma once
#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace emulation {

unsigned thread_index();
unsigned block_index();
unsigned grid_size();
void synchronize_block();
void synchronize_cluster();
unsigned char* shared_memory();          // the block's
unsigned char* shared_memory(int rank);  // of a block of its cluster

// What a kernel reads as threadIdx and the like.
struct Coordinate {
  struct {
    unsigned (*value)();
    operator unsigned() const { return value(); }
  } x;
};

constexpr int warp_threads = 32;
constexpr size_t slot_bytes = 32;

// Every lane of the warp hands in up to slot_bytes; returns the slots of all, lane by lane, which stay until the
// next-but-one exchange.
const unsigned char* exchange(const void* mine, size_t bytes);
unsigned lane();

template <class V>
V from_lane(const unsigned char* slots, unsigned lane) {
  V value;
  std::memcpy(&value, slots + lane * slot_bytes, sizeof value);
  return value;
}

inline uint32_t rounded_tf32(float number) {
  uint32_t bits;
  std::memcpy(&bits, &number, sizeof bits);
  return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~uint32_t{0x1fff};
}

inline float tf32_of(uint32_t word, int) {
  float number;
  word &= ~uint32_t{0x1fff};  // a tensor core does not look at them
  std::memcpy(&number, &word, sizeof number);
  return number;
}

template <class T>
float half_of(uint32_t word, int place);

// sums += a·b on the fragments that the PTX ISA gives each lane of mma.m16n8k8 (TF32) and mma.m16n8k16 (half width).
// A word of a fragment holds depth / 8 numbers that follow each other along the depth.
template <int depth>
void multiply_fragments(float (&sums)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                        float (*number)(uint32_t word, int place)) {
  struct Operands {
    uint32_t a[4], b[2];
  } mine;
  std::memcpy(mine.a, a, sizeof mine.a);
  std::memcpy(mine.b, b, sizeof mine.b);
  const unsigned char* slots = exchange(&mine, sizeof mine);
  constexpr int numbers = depth / 8;
  const int group = static_cast<int>(lane()) / 4, pair = static_cast<int>(lane()) % 4 * 2;
  for (int i = 0; i < 4; ++i) {
    const int low = i / 2, column = pair + i % 2;  // of the sum: row group + 8 * low
    for (int k = 0; k < depth; ++k) {
      const int owner = k % (4 * numbers) / numbers, upper = k / (4 * numbers), place = k % numbers;
      const auto left = from_lane<Operands>(slots, static_cast<unsigned>(group * 4 + owner));
      const auto right = from_lane<Operands>(slots, static_cast<unsigned>(column * 4 + owner));
      sums[i] += number(left.a[low + 2 * upper], place) * number(right.b[upper], place);
    }
  }
}

void run(dim3 grid, dim3 block, unsigned cluster, size_t shared_bytes, const std::function<void()>& thread);

}  // namespace emulation

#include "cuda_bf16.h"
#include "cuda_fp16.h"

template <>
inline float emulation::half_of<__nv_bfloat16>(uint32_t word, int place) {
  return __bfloat162float({static_cast<uint16_t>(word >> 16 * place)});
}
template <>
inline float emulation::half_of<__half>(uint32_t word, int place) {
  return __half2float({static_cast<uint16_t>(word >> 16 * place)});
}

inline constexpr emulation::Coordinate threadIdx{{emulation::thread_index}}, blockIdx{{emulation::block_index}},
    gridDim{{emulation::grid_size}};

inline void __syncthreads() { emulation::synchronize_block(); }

template <class V>
V __shfl_xor_sync(unsigned, V value, int distance) {
  const unsigned char* slots = emulation::exchange(&value, sizeof value);
  return emulation::from_lane<V>(slots, emulation::lane() ^ static_cast<unsigned>(distance));
}

// The runtime's functions, of as many devices as CUBE_EMULATED_DEVICES says, one if it does not.

struct EmulatedStream {
  int device;
};
using cudaStream_t = EmulatedStream*;  // null: the current device's
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInsufficientDriver = 35 };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin,
  cudaDevAttrClusterLaunch
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
#define CUDART_VERSION 13000

cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace emulation {
cudaError_t allow_shared_memory(const void* kernel, int bytes);
unsigned cluster_of(const cudaLaunchConfig_t& config);
cudaError_t check_launch(const void* kernel, const cudaLaunchConfig_t& config);
}  // namespace emulation

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return emulation::allow_shared_memory(reinterpret_cast<const void*>(kernel), bytes);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const cudaError_t error = emulation::check_launch(reinterpret_cast<const void*>(kernel), *config);
  if (error != cudaSuccess) return error;
  emulation::run(config->gridDim, config->blockDim, emulation::cluster_of(*config), config->dynamicSmemBytes,
                 [&] { kernel(arguments...); });
  return cudaSuccess;
}
