// Numbers as they are stored and as they are computed with: float32 always.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#define CUBE_CELL_FUNCTION __device__ inline

namespace cube {
namespace {

__device__ inline float widened(float number) { return number; }
__device__ inline float widened(__nv_bfloat16 number) { return __bfloat162float(number); }
__device__ inline float widened(__half number) { return __half2float(number); }

// Rounded to the nearest number that T holds, ties to even.
template <class T>
__device__ inline T narrowed(float number) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(number);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(number);
  } else {
    return number;
  }
}

// `width` numbers that lie side by side, moved by one instruction.
template <class T, int width>
struct alignas(sizeof(T) * width) Packet {
  T number[width];
};

template <int width>
struct Values {
  float number[width];
  __device__ float& operator[](int i) { return number[i]; }
  __device__ float operator[](int i) const { return number[i]; }
};

template <int width, class T>
__device__ inline Values<width> load(const T* from) {
  const Packet<T, width> packet = *reinterpret_cast<const Packet<T, width>*>(from);
  Values<width> values;
#pragma unroll
  for (int i = 0; i < width; ++i) values[i] = widened(packet.number[i]);
  return values;
}

template <int width, class T>
__device__ inline void store(T* to, const Values<width>& values) {
  Packet<T, width> packet;
#pragma unroll
  for (int i = 0; i < width; ++i) packet.number[i] = narrowed<T>(values[i]);
  *reinterpret_cast<Packet<T, width>*>(to) = packet;
}

// sums += a * b
template <int width>
__device__ inline void add_product(Values<width>& sums, const Values<width>& a, const Values<width>& b) {
#pragma unroll
  for (int i = 0; i < width; ++i) sums[i] = fmaf(a[i], b[i], sums[i]);
}

// What cell.h asks of a value.
template <class V>
__device__ inline V broadcast(double number) {
  return static_cast<V>(number);
}
__device__ inline float scaled(float value, double number) { return value * static_cast<float>(number); }
__device__ inline float hyperbolic_tangent(float value) { return tanhf(value); }
__device__ inline float logistic(float value) { return 1 / (1 + expf(-value)); }
__device__ inline float select_negative(float value, float a, float b) { return value < 0 ? a : b; }

}  // namespace
}  // namespace cube
