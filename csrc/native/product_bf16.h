// Products of bfloat16 operands with AVX512-BF16, summed in float: two steps of the depth in one instruction.
// The functions carry their own target, so that the AVX-512 kernels run on CPUs without it too.
#pragma once
#include "product.h"

#if defined(__AVX512F__) && CUBE_VECTOR_BYTES == 64
#include <immintrin.h>

namespace cube {
namespace {

constexpr bool has_bf16_products = true;

typedef uint16_t HalfVector __attribute__((vector_size(CUBE_VECTOR_BYTES / 2)));

// `count` numbers that bfloat16 holds, from float.
inline void narrow(const float* from, int64_t count, uint16_t* to) {
  typedef uint32_t Words __attribute__((vector_size(CUBE_VECTOR_BYTES)));
  for (int64_t i = 0; i < count; i += lanes<float>) {
    const HalfVector half = __builtin_convertvector(reinterpret_cast<Words>(load(from + i)) >> 16, HalfVector);
    __builtin_memcpy(to + i, &half, sizeof half);
  }
}

template <int Rows, int Columns>
__attribute__((target("avx512bf16"))) void product_tile_bf16(const uint16_t* a, int64_t a_row, const uint16_t* b,
                                                             int64_t columns, float* c, int64_t c_row, int64_t depth,
                                                             const float* bias) {
  __m512 sum[Rows][Columns];
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < Columns; ++n) sum[i][n] = _mm512_loadu_ps(bias + n * 16);
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; k += 2) {
    __m512bh right[Columns];
#pragma GCC unroll 4
    for (int n = 0; n < Columns; ++n) right[n] = (__m512bh)_mm512_loadu_si512(b + (k / 2 * columns + n * 16) * 2);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      int32_t pair;
      __builtin_memcpy(&pair, a + i * a_row + k, sizeof pair);
      const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
      for (int n = 0; n < Columns; ++n) sum[i][n] = _mm512_dpbf16_ps(sum[i][n], left, right[n]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < Columns; ++n) _mm512_storeu_ps(c + i * c_row + n * 16, sum[i][n]);
  }
}

template <int Rows, int Columns>
void product_panel_bf16(const uint16_t* a, int64_t a_row, const uint16_t* b, int64_t columns, float* c, int64_t c_row,
                        int64_t rows, int64_t depth, const float* bias) {
  for (int64_t i = 0; i < rows; i += Rows) {
    product_tile_bf16<Rows, Columns>(a + i * a_row, a_row, b, columns, c + i * c_row, c_row, depth, bias);
  }
}

// C[i, n] = bias[n] + sum_k A[i, k] B[k, n], with B's rows interleaved in pairs: b[(k / 2 * columns + n) * 2 + k % 2].
// `columns` is a multiple of the vector and `depth` even; rows are rounded up to whole tiles, as in `product`.
inline void product_bf16(const uint16_t* a, int64_t a_row, const uint16_t* b, float* c, int64_t c_row, int64_t rows,
                         int64_t columns, int64_t depth, const float* bias) {
  int64_t n = 0;
  for (; n + 64 <= columns; n += 64) {
    product_panel_bf16<6, 4>(a, a_row, b + n * 2, columns, c + n, c_row, rows, depth, bias + n);
  }
  for (; n + 32 <= columns; n += 32) {
    product_panel_bf16<12, 2>(a, a_row, b + n * 2, columns, c + n, c_row, rows, depth, bias + n);
  }
  for (; n < columns; n += 16) {
    product_panel_bf16<12, 1>(a, a_row, b + n * 2, columns, c + n, c_row, rows, depth, bias + n);
  }
}

}  // namespace
}  // namespace cube

#else

namespace cube {
namespace {

constexpr bool has_bf16_products = false;

}  // namespace
}  // namespace cube

#endif
