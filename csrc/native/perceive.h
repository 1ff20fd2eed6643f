// Perception of a range of cells, its adjoint and its filter gradient, in the target's padded layout:
// a cell's channels fill `stride` numbers, a multiple of the vector, of which those past `channels` are 0.
#pragma once
#include "../plan.h"
#include "vector.h"

namespace cube {
namespace {

// Cells [begin, end) of one row of the last axis, at (plane, line).
struct RowRange {
  int32_t plane, line, begin, end;
};

// Calls visit(RowRange, index of its first cell) for each row that the cells [begin, end) touch.
template <class Visit>
inline void for_each_row(const Plan& plan, int64_t begin, int64_t end, Visit&& visit) {
  const int32_t width = plan.axis[2].size, height = plan.axis[1].size;
  for (int64_t cell = begin; cell < end;) {
    const int64_t row = cell / width;
    const int32_t first = static_cast<int32_t>(cell - row * width);
    const int64_t left = end - cell;
    const int32_t last = left < width - first ? first + static_cast<int32_t>(left) : width;
    visit(RowRange{static_cast<int32_t>(row / height), static_cast<int32_t>(row % height), first, last}, cell);
    cell += last - first;
  }
}

inline const int32_t* axis_targets(const AxisMap& map, int32_t shift) {
  return map.target + static_cast<int64_t>(shift + map.radius) * map.size;
}

// Where one row's neighbors at one offset lie: row `base` (in cells), column `column[x]`; -1 is a wall.
struct NeighborRow {
  int64_t base;
  const int32_t* column;
};

inline NeighborRow neighbor_row(const Plan& plan, const Offset& offset, const RowRange& row) {
  const int64_t plane = axis_targets(plan.axis[0], offset.axis[0])[row.plane];
  const int64_t line = axis_targets(plan.axis[1], offset.axis[1])[row.line];
  if (plane < 0 || line < 0) return {-1, nullptr};
  return {(plane * plan.axis[1].size + line) * plan.axis[2].size, axis_targets(plan.axis[2], offset.axis[2])};
}

// The cell that cell x of the row reads, or -1 outside a wall.
inline int64_t neighbor_cell(const NeighborRow& row, int32_t x) {
  return row.base < 0 || row.column[x] < 0 ? -1 : row.base + row.column[x];
}

// Calls visit(reader) for every cell that reads `cell` (at x of the
// row) at this offset: the mirror of neighbor_cell. With replicate a face cell has several.
template <class Visit>
inline void for_each_reader(const Plan& plan, const Offset& offset, const RowRange& row, int32_t x, Visit&& visit) {
  const int32_t at[3] = {row.plane, row.line, x};
  const int32_t *first[3], *last[3];
  for (int a = 0; a < 3; ++a) {
    const AxisMap& map = plan.axis[a];
    const int32_t* start = map.source_start + static_cast<int64_t>(offset.axis[a] + map.radius) * map.size + at[a];
    first[a] = map.source + start[0];
    last[a] = map.source + start[1];
  }
  for (const int32_t* p = first[0]; p < last[0]; ++p) {
    for (const int32_t* l = first[1]; l < last[1]; ++l) {
      const int64_t base = (static_cast<int64_t>(*p) * plan.axis[1].size + *l) * plan.axis[2].size;
      for (const int32_t* c = first[2]; c < last[2]; ++c) visit(base + *c);
    }
  }
}

template <class T, int Filters>
inline void filter_row(const Plan& plan, const RowRange& row, const NeighborRow* neighbors, const T* state,
                       int32_t stride, const T* weights, T* out, int64_t out_stride) {
  const int64_t filter_stride = static_cast<int64_t>(plan.offset_count) * stride;
  for (int32_t x = row.begin; x < row.end; ++x, out += out_stride) {
    for (int32_t c = 0; c < stride; c += lanes<T>) {
      Vector<T> sum[Filters] = {};
      for (int32_t o = 0; o < plan.offset_count; ++o) {
        const int64_t cell = neighbor_cell(neighbors[o], x);
        if (cell < 0) continue;
        const Vector<T> value = load(state + cell * stride + c);
        for (int f = 0; f < Filters; ++f) sum[f] += load(weights + f * filter_stride + o * stride + c) * value;
      }
      for (int f = 0; f < Filters; ++f) store(out + f * stride + c, sum[f]);
    }
  }
}

// The percepts of the cells [begin, end): percept_count(plan) * stride numbers at out + (i - begin) * out_stride.
// `neighbors` is scratch for offset_count rows.
template <class T>
inline void perceive(const Plan& plan, const T* state, int32_t stride, const T* weights, int64_t begin, int64_t end,
                     NeighborRow* neighbors, T* out, int64_t out_stride) {
  for_each_row(plan, begin, end, [&](const RowRange& row, int64_t first_cell) {
    for (int32_t o = 0; o < plan.offset_count; ++o) neighbors[o] = neighbor_row(plan, plan.offsets[o], row);
    T* row_out = out + (first_cell - begin) * out_stride;
    if (plan.filters > 0) {
      const int64_t filter_stride = static_cast<int64_t>(plan.offset_count) * stride;
      int32_t f = 0;
      for (; f + 4 <= plan.filters; f += 4) {
        filter_row<T, 4>(plan, row, neighbors, state, stride, weights + f * filter_stride, row_out + f * stride,
                         out_stride);
      }
      for (; f < plan.filters; ++f) {
        filter_row<T, 1>(plan, row, neighbors, state, stride, weights + f * filter_stride, row_out + f * stride,
                         out_stride);
      }
      return;
    }
    for (int32_t x = row.begin; x < row.end; ++x, row_out += out_stride) {
      for (int32_t o = 0; o < plan.offset_count; ++o) {
        const int64_t cell = neighbor_cell(neighbors[o], x);
        for (int32_t c = 0; c < stride; c += lanes<T>) {
          store(row_out + o * stride + c, cell < 0 ? Vector<T>{} : load(state + cell * stride + c));
        }
      }
    }
  });
}

// gradient[j] += the adjoint of perception for the cells j in [begin, end): a gather over the cells that
// read j, in a fixed order. `percepts` holds percept_count(plan) * stride numbers a cell.
template <class T>
inline void perceive_adjoint(const Plan& plan, const T* percepts, int32_t stride, const T* weights, int64_t begin,
                             int64_t end, T* gradient) {
  const int64_t percept_stride = static_cast<int64_t>(percept_count(plan)) * stride;
  for_each_row(plan, begin, end, [&](const RowRange& row, int64_t first_cell) {
    for (int32_t x = row.begin; x < row.end; ++x) {
      T* to = gradient + (first_cell + x - row.begin) * stride;
      for (int32_t c = 0; c < stride; c += lanes<T>) {
        Vector<T> sum = load(to + c);
        for (int32_t o = 0; o < plan.offset_count; ++o) {
          for_each_reader(plan, plan.offsets[o], row, x, [&](int64_t reader) {
            const T* from = percepts + reader * percept_stride + c;
            if (plan.filters == 0) {
              sum += load(from + o * stride);
              return;
            }
            for (int32_t f = 0; f < plan.filters; ++f) {
              sum += load(weights + (static_cast<int64_t>(f) * plan.offset_count + o) * stride + c) *
                     load(from + f * stride);
            }
          });
        }
        store(to + c, sum);
      }
    }
  });
}

// gradient[f, o] += sum over the cells i in [begin, end) of percepts[i, f] * state[neighbor o of i].
template <class T>
inline void filter_gradient(const Plan& plan, const T* state, int32_t stride, const T* percepts, int64_t begin,
                            int64_t end, NeighborRow* neighbors, T* gradient) {
  const int64_t percept_stride = static_cast<int64_t>(plan.filters) * stride;
  for_each_row(plan, begin, end, [&](const RowRange& row, int64_t first_cell) {
    for (int32_t o = 0; o < plan.offset_count; ++o) neighbors[o] = neighbor_row(plan, plan.offsets[o], row);
    for (int32_t f = 0; f < plan.filters; ++f) {
      for (int32_t o = 0; o < plan.offset_count; ++o) {
        T* to = gradient + (static_cast<int64_t>(f) * plan.offset_count + o) * stride;
        for (int32_t c = 0; c < stride; c += lanes<T>) {
          Vector<T> sum = load(to + c);
          for (int32_t x = row.begin; x < row.end; ++x) {
            const int64_t cell = neighbor_cell(neighbors[o], x);
            if (cell < 0) continue;
            const int64_t reader = first_cell + x - row.begin;
            sum += load(percepts + reader * percept_stride + f * stride + c) * load(state + cell * stride + c);
          }
          store(to + c, sum);
        }
      }
    }
  });
}

}  // namespace
}  // namespace cube
