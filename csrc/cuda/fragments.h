// One product of fragments on a tensor core: what a warp's 32 lanes hold of the matrices, and the instruction.
//
// With g = lane / 4 and t = lane % 4, a lane's numbers are (PTX ISA, "Matrix Fragments for mma.m16n8k8" and
// "... for mma.m16n8k16"):
//   sums            rows g, g, g + 8, g + 8; columns 2t, 2t + 1, 2t, 2t + 1
//   left, depth 8   rows g, g + 8, g, g + 8; places t, t, t + 4, t + 4
//   right, depth 8  places t, t + 4; column g
//   left, depth 16  rows g, g + 8, g, g + 8; pairs of places from 2t, 2t, 2t + 8, 2t + 8
//   right, depth 16 pairs of places from 2t, 2t + 8; column g
#pragma once
#include "numbers.h"

namespace cube {
namespace {

struct Sums {
  float number[4];
};
struct Left {
  uint32_t word[4];
};
struct Right {
  uint32_t word[2];
};

// Depth 8, operands as `tf32` makes them.
__device__ inline void multiply_tf32(Sums& sums, const Left& a, const Right& b) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums.number[0]), "+f"(sums.number[1]), "+f"(sums.number[2]), "+f"(sums.number[3])
      : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
#else
  emulation::multiply_fragments<8>(sums.number, a.word, b.word, emulation::tf32_of);
#endif
}

// Depth 16, operands of pairs of T.
template <class T>
__device__ inline void multiply_pairs(Sums& sums, const Left& a, const Right& b) {
#ifdef __CUDACC__
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums.number[0]), "+f"(sums.number[1]), "+f"(sums.number[2]), "+f"(sums.number[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sums.number[0]), "+f"(sums.number[1]), "+f"(sums.number[2]), "+f"(sums.number[3])
        : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "r"(b.word[0]), "r"(b.word[1]));
  }
#else
  emulation::multiply_fragments<16>(sums.number, a.word, b.word, emulation::half_of<T>);
#endif
}

// The nearest number of 10 bits of mantissa, ties away from zero, as a tensor core takes it.
__device__ inline uint32_t tf32(float number) {
#ifdef __CUDACC__
  uint32_t word;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(number));
  return word;
#else
  return emulation::rounded_tf32(number);
#endif
}

}  // namespace
}  // namespace cube
