// Perception of a range of cells, its adjoint and its filter gradient, in the target's padded layout:
// a cell's channels fill `stride` numbers, a multiple of the vector, of which those past `channels` are 0.
#pragma once
#include <type_traits>

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

// The mirror of NeighborRow: the rows that hold the cells reading this row at one offset, and for each column x
// their columns, column[start[x]] to column[start[x + 1]]. With replicate a face cell has several of each.
struct ReaderRows {
  const int32_t *plane, *line;
  int32_t planes, lines;
  int64_t base;  // of the first such row, in cells
  const int32_t* start;
  const int32_t* column;
};

inline const int32_t* axis_sources(const AxisMap& map, int32_t shift) {
  return map.source_start + static_cast<int64_t>(shift + map.radius) * map.size;
}

inline int64_t row_base(const Plan& plan, int32_t plane, int32_t line) {
  return (static_cast<int64_t>(plane) * plan.axis[1].size + line) * plan.axis[2].size;
}

inline ReaderRows reader_rows(const Plan& plan, const Offset& offset, const RowRange& row) {
  const int32_t* planes = axis_sources(plan.axis[0], offset.axis[0]) + row.plane;
  const int32_t* lines = axis_sources(plan.axis[1], offset.axis[1]) + row.line;
  ReaderRows rows{plan.axis[0].source + planes[0],
                  plan.axis[1].source + lines[0],
                  planes[1] - planes[0],
                  lines[1] - lines[0],
                  0,
                  axis_sources(plan.axis[2], offset.axis[2]),
                  plan.axis[2].source};
  if (rows.planes > 0 && rows.lines > 0) rows.base = row_base(plan, rows.plane[0], rows.line[0]);
  return rows;
}

// Calls visit(reader) for every cell that reads column x of the row, in a fixed order.
template <class Visit>
inline void for_each_reader(const Plan& plan, const ReaderRows& rows, int32_t x, Visit&& visit) {
  if (rows.planes == 1 && rows.lines == 1) {  // away from replicating faces
    for (int32_t i = rows.start[x]; i < rows.start[x + 1]; ++i) visit(rows.base + rows.column[i]);
    return;
  }
  for (int32_t plane = 0; plane < rows.planes; ++plane) {
    for (int32_t line = 0; line < rows.lines; ++line) {
      const int64_t base = row_base(plan, rows.plane[plane], rows.line[line]);
      for (int32_t i = rows.start[x]; i < rows.start[x + 1]; ++i) visit(base + rows.column[i]);
    }
  }
}

// Calls group(count, first) for groups of filters whose sums stay in registers, count being a constant.
template <class Group>
inline void for_each_filter_group(int32_t filters, Group&& group) {
  int32_t first = 0;
  for (; first + 4 <= filters; first += 4) group(std::integral_constant<int, 4>{}, first);
  for (; first < filters; ++first) group(std::integral_constant<int, 1>{}, first);
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
      for_each_filter_group(plan.filters, [&](auto count, int32_t first) {
        filter_row<T, count>(plan, row, neighbors, state, stride, weights + first * filter_stride,
                             row_out + first * stride, out_stride);
      });
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
// read j, in a fixed order. `percepts` holds percept_count(plan) * stride numbers a cell. `readers` is scratch
// for offset_count rows.
template <class T>
inline void perceive_adjoint(const Plan& plan, const T* percepts, int32_t stride, const T* weights, int64_t begin,
                             int64_t end, ReaderRows* readers, T* gradient) {
  const int64_t percept_stride = static_cast<int64_t>(percept_count(plan)) * stride;
  const int64_t filter_stride = static_cast<int64_t>(plan.offset_count) * stride;
  for_each_row(plan, begin, end, [&](const RowRange& row, int64_t first_cell) {
    for (int32_t o = 0; o < plan.offset_count; ++o) readers[o] = reader_rows(plan, plan.offsets[o], row);
    for (int32_t x = row.begin; x < row.end; ++x) {
      T* to = gradient + (first_cell + x - row.begin) * stride;
      for (int32_t c = 0; c < stride; c += lanes<T>) {
        Vector<T> sum = load(to + c);
        for (int32_t o = 0; o < plan.offset_count && plan.filters == 0; ++o) {
          for_each_reader(plan, readers[o], x,
                          [&](int64_t reader) { sum += load(percepts + reader * percept_stride + o * stride + c); });
        }
        for_each_filter_group(plan.filters, [&](auto count, int32_t first) {
          Vector<T> part[count] = {};  // one chain of additions a filter
          for (int32_t o = 0; o < plan.offset_count; ++o) {
            const T* weight = weights + first * filter_stride + o * stride + c;
            for_each_reader(plan, readers[o], x, [&](int64_t reader) {
              const T* from = percepts + reader * percept_stride + first * stride + c;
              for (int f = 0; f < count; ++f) part[f] += load(weight + f * filter_stride) * load(from + f * stride);
            });
          }
          for (int f = 0; f < count; ++f) sum += part[f];
        });
        store(to + c, sum);
      }
    }
  });
}

// gradient[f, o] += sum over the cells i in [begin, end) of percepts[i, f] * state[neighbor o of i].
template <class T>
inline void filter_gradient(const Plan& plan, const T* state, int32_t stride, const T* percepts, int64_t begin,
                            int64_t end, T* gradient) {
  const int64_t percept_stride = static_cast<int64_t>(plan.filters) * stride;
  const int64_t filter_stride = static_cast<int64_t>(plan.offset_count) * stride;
  for_each_row(plan, begin, end, [&](const RowRange& row, int64_t first_cell) {
    for (int32_t o = 0; o < plan.offset_count; ++o) {
      const NeighborRow neighbors = neighbor_row(plan, plan.offsets[o], row);
      if (neighbors.base < 0) continue;
      for_each_filter_group(plan.filters, [&](auto count, int32_t first) {
        for (int32_t c = 0; c < stride; c += lanes<T>) {
          T* to = gradient + first * filter_stride + o * stride + c;
          Vector<T> sum[count];
          for (int f = 0; f < count; ++f) sum[f] = load(to + f * filter_stride);
          for (int32_t x = row.begin; x < row.end; ++x) {
            const int64_t cell = neighbor_cell(neighbors, x);
            if (cell < 0) continue;
            const Vector<T> value = load(state + cell * stride + c);
            const T* from = percepts + (first_cell + x - row.begin) * percept_stride + first * stride + c;
            for (int f = 0; f < count; ++f) sum[f] += load(from + f * stride) * value;
          }
          for (int f = 0; f < count; ++f) store(to + f * filter_stride, sum[f]);
        }
      });
    }
  });
}

}  // namespace
}  // namespace cube
