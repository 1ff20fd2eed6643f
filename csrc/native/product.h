// Matrix products of the rule: small panels that stay in registers, all operands in cache.
#pragma once
#include <type_traits>

#include "vector.h"

namespace cube {
namespace {

template <int v>
using Count = std::integral_constant<int, v>;

constexpr bool many_registers = CUBE_VECTOR_BYTES == 64;  // 32 vectors, otherwise 16

// What a product starts from.
enum class Start { zero, bias, sum };

// The rows a caller may read or write past its last one: tiles are whole.
constexpr int row_tile = 12;

// C[i, n] = start + sum_k A(i, k) B[k, n] for `Rows` rows and `Columns` vectors of columns,
// with A(i, k) = a[i * a_row + k * a_step].
template <class T, int Rows, int Columns>
inline void product_tile(const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t b_row, T* c, int64_t c_row,
                         int64_t depth, Start start, const T* bias) {
  using V = Vector<T>;
  V sum[Rows][Columns];
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < Columns; ++n) {
      sum[i][n] = start == Start::sum    ? load(c + i * c_row + n * lanes<T>)
                  : start == Start::bias ? load(bias + n * lanes<T>)
                                         : V{};
    }
  }
#pragma GCC unroll 1
  for (int64_t k = 0; k < depth; ++k) {
    V right[Columns];
#pragma GCC unroll 4
    for (int n = 0; n < Columns; ++n) right[n] = load(b + k * b_row + n * lanes<T>);
#pragma GCC unroll 12
    for (int i = 0; i < Rows; ++i) {
      const V left = broadcast<V>(a[i * a_row + k * a_step]);
#pragma GCC unroll 4
      for (int n = 0; n < Columns; ++n) sum[i][n] += left * right[n];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 4
    for (int n = 0; n < Columns; ++n) store(c + i * c_row + n * lanes<T>, sum[i][n]);
  }
}

template <class T, int Rows, int Columns>
inline void product_panel(const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t b_row, T* c, int64_t c_row,
                          int64_t rows, int64_t depth, Start start, const T* bias) {
  for (int64_t i = 0; i < rows; i += Rows) {
    product_tile<T, Rows, Columns>(a + i * a_row, a_row, a_step, b, b_row, c + i * c_row, c_row, depth, start, bias);
  }
}

// The same for any number of rows and columns. Columns are rounded up to whole vectors and rows to
// `row_tile`: the caller's buffers have room for them, and nobody reads what lands there.
template <class T>
inline void product(const T* a, int64_t a_row, int64_t a_step, const T* b, int64_t b_row, T* c, int64_t c_row,
                    int64_t rows, int64_t columns, int64_t depth, Start start, const T* bias = nullptr) {
  int64_t n = 0;
  const auto panel = [&](auto tile_rows, auto tile_columns) {
    product_panel<T, tile_rows.value, tile_columns.value>(a, a_row, a_step, b + n, b_row, c + n, c_row, rows, depth,
                                                          start, start == Start::bias ? bias + n : nullptr);
    n += tile_columns.value * lanes<T>;
  };
  while (n < columns) {
    const int64_t left = (columns - n + lanes<T> - 1) / lanes<T>;
    // A single column is the slowest: five are three and two.
    if (many_registers && left >= 4 && left != 5) {
      panel(Count<6>{}, Count<4>{});
    } else if (many_registers && (left == 5 || left == 3)) {
      panel(Count<6>{}, Count<3>{});
    } else if (left >= 2) {
      panel(Count<many_registers ? 12 : 6>{}, Count<2>{});
    } else {
      panel(Count<12>{}, Count<1>{});
    }
  }
}

}  // namespace
}  // namespace cube
