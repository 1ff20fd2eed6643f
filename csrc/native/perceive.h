// Perception of a list of cells, its adjoint and its filter gradient, in the target's padded layout: a cell's
// channels fill `stride` numbers, a multiple of the vector, of which those past `channels` are 0. Every array of
// cells has one more at its end, which is zero: what lies outside reads that.
#pragma once
#include "../plan.h"
#include "product.h"

namespace cube {
namespace {

// Consecutive entries of a list of cells that lie in one row of the last axis.
struct Run {
  int32_t plane, line;
  int64_t base;          // the row's first cell
  const int64_t* cells;  // of the entries
  int64_t index, count;  // the first entry's place in the list; entries
};

// Calls visit(Run) for the runs of an ascending list.
template <class Visit>
inline void for_each_run(const Plan& plan, const int64_t* cells, int64_t count, Visit&& visit) {
  const int32_t width = plan.axis[2].size, height = plan.axis[1].size;
  for (int64_t i = 0; i < count;) {
    const int64_t row = cells[i] / width, end = (row + 1) * width;
    int64_t next = i + 1;
    while (next < count && cells[next] < end) ++next;
    visit(Run{static_cast<int32_t>(row / height), static_cast<int32_t>(row % height), row * width, cells + i, i,
              next - i});
    i = next;
  }
}

// Where one row's neighbors at one offset lie: cell `base + column[x]`, or outside where column[x] is negative.
struct NeighborRow {
  int64_t base;  // negative: all outside
  const int32_t* column;
};

inline int64_t shift_start(const AxisMap& map, int32_t shift) {
  return static_cast<int64_t>(shift + map.reach) * map.size;
}

inline int64_t row_base(const Plan& plan, int64_t plane, int64_t line) {
  return (plane * plan.axis[1].size + line) * plan.axis[2].size;
}

inline NeighborRow neighbor_row(const Plan& plan, const Offset& offset, int32_t plane, int32_t line) {
  const int64_t near_plane = plan.axis[0].target[shift_start(plan.axis[0], offset.axis[0]) + plane];
  const int64_t near_line = plan.axis[1].target[shift_start(plan.axis[1], offset.axis[1]) + line];
  return {near_plane < 0 || near_line < 0 ? -1 : row_base(plan, near_plane, near_line),
          plan.axis[2].target + shift_start(plan.axis[2], offset.axis[2])};
}

// The cell that column x of the row reads; plan.cells for what lies outside.
inline int64_t neighbor_cell(const Plan& plan, const NeighborRow& row, int64_t x) {
  const int64_t column = row.column[x];
  return (row.base | column) < 0 ? plan.cells : row.base + column;
}

// The mirror of NeighborRow: the rows that hold the cells reading this row at one offset, and for each column x
// their columns, column[start[x]] to column[start[x + 1]]. With replicate and reflecting boundaries a cell near a
// face has several of each.
struct ReaderRows {
  const int32_t *plane, *line;
  int32_t planes, lines;
  int64_t base;  // of the only such row; -1: none, -2: several
  const int32_t* start;
  const int32_t* column;
  const int32_t* only_column;
};

inline ReaderRows reader_rows(const Plan& plan, const Offset& offset, int32_t plane, int32_t line) {
  const AxisMap *depth = plan.axis, *height = plan.axis + 1, *width = plan.axis + 2;
  const int64_t at_depth = shift_start(*depth, offset.axis[0]), at_height = shift_start(*height, offset.axis[1]);
  const int64_t at_width = shift_start(*width, offset.axis[2]);
  const int32_t* planes = depth->source_start + at_depth + plane;
  const int32_t* lines = height->source_start + at_height + line;
  const int64_t only_plane = depth->only_source[at_depth + plane], only_line = height->only_source[at_height + line];
  return {depth->source + planes[0],
          height->source + lines[0],
          planes[1] - planes[0],
          lines[1] - lines[0],
          only_plane == -1 || only_line == -1 ? -1
          : only_plane < 0 || only_line < 0   ? -2
                                              : row_base(plan, only_plane, only_line),
          width->source_start + at_width,
          width->source,
          width->only_source + at_width};
}

// The only cell that reads column x of the row: plan.cells if none does, -2 if several do.
inline int64_t only_reader(const Plan& plan, const ReaderRows& rows, int64_t x) {
  const int64_t column = rows.only_column[x];
  if (rows.base == -1 || column == -1) return plan.cells;
  return rows.base < 0 || column < 0 ? -2 : rows.base + column;
}

// Calls visit(reader) for every cell that reads column x of the row, in a fixed order.
template <class Visit>
inline void for_each_reader(const Plan& plan, const ReaderRows& rows, int64_t x, Visit&& visit) {
  for (int32_t plane = 0; plane < rows.planes; ++plane) {
    for (int32_t line = 0; line < rows.lines; ++line) {
      const int64_t base = row_base(plan, rows.plane[plane], rows.line[line]);
      for (int32_t i = rows.start[x]; i < rows.start[x + 1]; ++i) visit(base + rows.column[i]);
    }
  }
}

// Calls group(Count, first) for the groups of 4, and then single ones, of `total` things: sums over a group stay in
// registers.
template <class Group>
inline void for_each_group(int64_t total, Group&& group) {
  int64_t first = 0;
  for (; first + 4 <= total; first += 4) group(Count<4>{}, first);
  for (; first < total; ++first) group(Count<1>{}, first);
}

constexpr int cell_group = many_registers ? 4 : 2;

// The same for cells, in groups whose sums for 4 filters leave registers for the operands.
template <class Group>
inline void for_each_cell_group(int64_t total, Group&& group) {
  int64_t first = 0;
  for (; first + cell_group <= total; first += cell_group) group(Count<cell_group>{}, first);
  for (; first < total; ++first) group(Count<1>{}, first);
}

// The percepts of the listed cells: percept_count(plan) * stride numbers at out + (place in the list) * out_stride.
// `neighbors` is scratch for offset_count rows.
template <class T>
inline void perceive(const Plan& plan, const T* state, int64_t stride, const T* bank, const int64_t* cells,
                     int64_t count, NeighborRow* neighbors, T* out, int64_t out_stride) {
  const int64_t filter_stride = plan.offset_count * stride;
  for_each_run(plan, cells, count, [&](const Run& run) {
    for (int32_t o = 0; o < plan.offset_count; ++o) {
      neighbors[o] = neighbor_row(plan, plan.offsets[o], run.plane, run.line);
    }
    if (plan.perception == Perception::gather) {
      for (int64_t i = 0; i < run.count; ++i) {
        T* to = out + (run.index + i) * out_stride;
        for (int32_t o = 0; o < plan.offset_count; ++o) {
          const T* from = state + neighbor_cell(plan, neighbors[o], run.cells[i] - run.base) * stride;
          for (int64_t c = 0; c < stride; c += lanes<T>) store(to + o * stride + c, load(from + c));
        }
      }
      return;
    }
    for_each_group(plan.filters, [&](auto filters, int64_t filter) {
      for_each_cell_group(run.count, [&](auto group, int64_t first) {
        T* to = out + (run.index + first) * out_stride + filter * stride;
        for (int64_t c = 0; c < stride; c += lanes<T>) {
          Vector<T> sum[decltype(group)::value][decltype(filters)::value] = {};
          for (int32_t o = 0; o < plan.offset_count; ++o) {
            const T* weight = bank + filter * filter_stride + o * stride + c;
            Vector<T> weights[decltype(filters)::value];
            for (int f = 0; f < filters; ++f) weights[f] = load(weight + f * filter_stride);
            for (int i = 0; i < group; ++i) {
              const int64_t cell = neighbor_cell(plan, neighbors[o], run.cells[first + i] - run.base);
              const Vector<T> value = load(state + cell * stride + c);
              for (int f = 0; f < filters; ++f) sum[i][f] += weights[f] * value;
            }
          }
          for (int i = 0; i < group; ++i) {
            for (int f = 0; f < filters; ++f) store(to + i * out_stride + f * stride + c, sum[i][f]);
          }
        }
      });
    });
  });
}

// gradient[j] += the adjoint of perception for the listed cells j: a gather over the cells that read j, in a fixed
// order. `percepts` holds percept_count(plan) * stride numbers a cell. `readers` is scratch for offset_count rows.
template <class T>
inline void perceive_adjoint(const Plan& plan, const T* percepts, int64_t stride, const T* bank, const int64_t* cells,
                             int64_t count, ReaderRows* readers, T* gradient) {
  const int64_t percept_stride = percept_count(plan) * stride;
  const int64_t filter_stride = plan.offset_count * stride;
  for_each_run(plan, cells, count, [&](const Run& run) {
    for (int32_t o = 0; o < plan.offset_count; ++o) {
      readers[o] = reader_rows(plan, plan.offsets[o], run.plane, run.line);
    }
    const auto each_reader = [&](const ReaderRows& rows, int64_t x, auto&& visit) {
      const int64_t only = only_reader(plan, rows, x);
      if (__builtin_expect(only >= 0, 1)) {
        visit(only);
      } else {
        for_each_reader(plan, rows, x, visit);
      }
    };
    for_each_cell_group(run.count, [&](auto group, int64_t first) {
      for (int64_t c = 0; c < stride; c += lanes<T>) {
        Vector<T> sum[decltype(group)::value];
        for (int i = 0; i < group; ++i) sum[i] = load(gradient + run.cells[first + i] * stride + c);
        if (plan.perception == Perception::gather) {
          for (int32_t o = 0; o < plan.offset_count; ++o) {
            for (int i = 0; i < group; ++i) {
              each_reader(readers[o], run.cells[first + i] - run.base,
                          [&](int64_t reader) { sum[i] += load(percepts + reader * percept_stride + o * stride + c); });
            }
          }
        }
        for_each_group(plan.filters, [&](auto filters, int64_t filter) {
          Vector<T> part[decltype(group)::value][decltype(filters)::value] = {};  // one chain of additions a filter
          for (int32_t o = 0; o < plan.offset_count; ++o) {
            const T* weight = bank + filter * filter_stride + o * stride + c;
            Vector<T> weights[decltype(filters)::value];
            for (int f = 0; f < filters; ++f) weights[f] = load(weight + f * filter_stride);
            for (int i = 0; i < group; ++i) {
              each_reader(readers[o], run.cells[first + i] - run.base, [&](int64_t reader) {
                const T* from = percepts + reader * percept_stride + filter * stride + c;
                for (int f = 0; f < filters; ++f) part[i][f] += weights[f] * load(from + f * stride);
              });
            }
          }
          for (int i = 0; i < group; ++i) {
            for (int f = 0; f < filters; ++f) sum[i] += part[i][f];
          }
        });
        for (int i = 0; i < group; ++i) store(gradient + run.cells[first + i] * stride + c, sum[i]);
      }
    });
  });
}

// gradient[f, o] += sum over the listed cells i of percepts[i, f] * state[neighbor o of i]. `neighbors` is scratch
// for offset_count rows.
template <class T>
inline void filter_gradient(const Plan& plan, const T* state, int64_t stride, const T* percepts, const int64_t* cells,
                            int64_t count, NeighborRow* neighbors, T* gradient) {
  const int64_t percept_stride = plan.filters * stride;
  const int64_t filter_stride = plan.offset_count * stride;
  for_each_run(plan, cells, count, [&](const Run& run) {
    for (int32_t o = 0; o < plan.offset_count; ++o) {
      neighbors[o] = neighbor_row(plan, plan.offsets[o], run.plane, run.line);
    }
    for_each_group(plan.filters, [&](auto filters, int64_t filter) {
      for_each_cell_group(plan.offset_count, [&](auto group, int64_t first) {
        for (int64_t c = 0; c < stride; c += lanes<T>) {
          T* to = gradient + filter * filter_stride + first * stride + c;
          Vector<T> sum[decltype(group)::value][decltype(filters)::value];
          for (int o = 0; o < group; ++o) {
            for (int f = 0; f < filters; ++f) sum[o][f] = load(to + f * filter_stride + o * stride);
          }
          for (int64_t i = 0; i < run.count; ++i) {
            const T* from = percepts + run.cells[i] * percept_stride + filter * stride + c;
            Vector<T> factor[decltype(filters)::value];
            for (int f = 0; f < filters; ++f) factor[f] = load(from + f * stride);
            for (int o = 0; o < group; ++o) {
              const int64_t cell = neighbor_cell(plan, neighbors[first + o], run.cells[i] - run.base);
              const Vector<T> value = load(state + cell * stride + c);
              for (int f = 0; f < filters; ++f) sum[o][f] += factor[f] * value;
            }
          }
          for (int o = 0; o < group; ++o) {
            for (int f = 0; f < filters; ++f) store(to + f * filter_stride + o * stride, sum[o][f]);
          }
        }
      });
    });
  });
}

}  // namespace
}  // namespace cube
