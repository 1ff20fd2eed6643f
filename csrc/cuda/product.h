// Products of matrices by a whole block. Their sizes are padded with zeros to multiples of 16.
#pragma once
#include "block.h"
#include "fragments.h"

namespace cube {
namespace {

// Four rows of four columns.
struct Square {
  float number[4][4];
};

template <class T>
struct RowMajor {
  const T* data;
  int stride;

  __device__ float at(int row, int column) const { return widened(data[row * stride + column]); }
  __device__ Square square(int row, int column) const {
    Square square;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Values<4> values = load<4>(data + (row + i) * stride + column);
#pragma unroll
      for (int j = 0; j < 4; ++j) square.number[i][j] = values[j];
    }
    return square;
  }
  // Columns `column` and `column + 1`, as they lie in memory.
  __device__ uint32_t pair(int row, int column) const {
    static_assert(sizeof(T) == 2);
    return *reinterpret_cast<const uint32_t*>(data + row * stride + column);
  }
};

// The transpose of a row-major matrix.
template <class T>
struct ColumnMajor {
  RowMajor<T> transpose;

  __device__ ColumnMajor(const T* data, int stride) : transpose{data, stride} {}
  __device__ float at(int row, int column) const { return transpose.at(column, row); }
  __device__ Square square(int row, int column) const {
    const Square from = transpose.square(column, row);
    Square square;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) square.number[i][j] = from.number[j][i];
    }
    return square;
  }
  // Rows `row` and `row + 1`.
  __device__ uint32_t pair(int row, int column) const { return transpose.pair(column, row); }
};

// Calls visit(row, column) for the first row and column of the warp's tiles of a matrix.
template <int tile_rows, int tile_columns, class Visit>
__device__ inline void for_each_warp_tile(int rows, int columns, Visit&& visit) {
  const int across = columns / tile_columns, tiles = (rows + tile_rows - 1) / tile_rows * across;
  for (int tile = static_cast<int>(threadIdx.x) / warp_threads; tile < tiles; tile += block_warps) {
    visit(tile / across * tile_rows, tile % across * tile_columns);
  }
}

using Pair = Values<2>;

// Each kind of product calls put(row, column, Pair) for every two neighboring columns of a·b, the first of them even.

// IEEE float32: a thread's 4 × 4 sums stay in registers.
struct FmaProduct {
  template <class A, class B, class Put>
  static __device__ void run(const A& a, const B& b, int rows, int columns, int depth, Put&& put) {
    const int lane = static_cast<int>(threadIdx.x) % warp_threads;
    for_each_warp_tile<32, 16>(rows, columns, [&](int first_row, int first_column) {
      const int row = first_row + lane / 4 * 4, column = first_column + lane % 4 * 4;
      if (row >= rows) return;
      Square sums{};
      for (int k = 0; k < depth; k += 4) {
        const Square x = a.square(row, k), y = b.square(k, column);
#pragma unroll
        for (int l = 0; l < 4; ++l) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              sums.number[i][j] = fmaf(x.number[i][l], y.number[l][j], sums.number[i][j]);
            }
          }
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        put(row + i, column, Pair{{sums.number[i][0], sums.number[i][1]}});
        put(row + i, column + 2, Pair{{sums.number[i][2], sums.number[i][3]}});
      }
    });
  }
};

// Puts a warp's 16 × 16 sums.
template <class Put>
__device__ inline void put_sums(const Sums (&sums)[2], int row, int column, int lane, Put&& put) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int r = row + lane / 4, c = column + 8 * half + lane % 4 * 2;
    put(r, c, Pair{{sums[half].number[0], sums[half].number[1]}});
    put(r + 8, c, Pair{{sums[half].number[2], sums[half].number[3]}});
  }
}

// Tensor cores, operands of any type rounded to 10 bits of mantissa.
struct Tf32Product {
  template <class A, class B, class Put>
  static __device__ void run(const A& a, const B& b, int rows, int columns, int depth, Put&& put) {
    const int lane = static_cast<int>(threadIdx.x) % warp_threads, g = lane / 4, t = lane % 4;
    for_each_warp_tile<16, 16>(rows, columns, [&](int row, int column) {
      Sums sums[2]{};
      for (int k = 0; k < depth; k += 8) {
        const Left left{{tf32(a.at(row + g, k + t)), tf32(a.at(row + g + 8, k + t)), tf32(a.at(row + g, k + t + 4)),
                         tf32(a.at(row + g + 8, k + t + 4))}};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int c = column + 8 * half + g;
          multiply_tf32(sums[half], left, Right{{tf32(b.at(k + t, c)), tf32(b.at(k + t + 4, c))}});
        }
      }
      put_sums(sums, row, column, lane, put);
    });
  }
};

// Tensor cores on operands stored as T, each with its depth contiguous.
template <class T>
struct PairProduct {
  template <class Put>
  static __device__ void run(const RowMajor<T>& a, const ColumnMajor<T>& b, int rows, int columns, int depth,
                             Put&& put) {
    const int lane = static_cast<int>(threadIdx.x) % warp_threads, g = lane / 4, t = lane % 4 * 2;
    for_each_warp_tile<16, 16>(rows, columns, [&](int row, int column) {
      Sums sums[2]{};
      for (int k = 0; k < depth; k += 16) {
        const Left left{{a.pair(row + g, k + t), a.pair(row + g + 8, k + t), a.pair(row + g, k + t + 8),
                         a.pair(row + g + 8, k + t + 8)}};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int c = column + 8 * half + g;
          multiply_pairs<T>(sums[half], left, Right{{b.pair(k + t, c), b.pair(k + t + 8, c)}});
        }
      }
      put_sums(sums, row, column, lane, put);
    });
  }
};

}  // namespace
}  // namespace cube
