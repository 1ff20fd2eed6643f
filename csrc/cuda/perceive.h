// Perception, its adjoint and its gradient in the filters: `width` channels of one cell at a time.
#pragma once
#include "group.h"
#include "numbers.h"
#include "tables.h"

namespace cube {
namespace {

// Sums that one thread keeps in registers for as many filters at once.
constexpr int filters_at_once = 4;

// The percepts of channels c.. of a cell: put(vector, values) for each. A row of the bank has `stride` channels.
template <int width, class States, class W, class Put>
__device__ inline void perceive(const Plan& plan, const Tables& tables, const States& states, const W* bank, int stride,
                                int cell, int c, Put&& put) {
  const int cells = static_cast<int>(plan.cells);
  const auto neighbor = [&](int o) { return tables.neighbor[o * cells + cell]; };
  if (plan.perception == Perception::depthwise) {
    for (int first = 0; first < plan.filters; first += filters_at_once) {
      Values<width> sums[filters_at_once]{};
      for (int o = 0; o < plan.offset_count; ++o) {
        const int near = neighbor(o);
        if (near < 0) continue;
        const Values<width> x = load<width>(states.of(near) + c);
#pragma unroll
        for (int f = 0; f < filters_at_once; ++f) {
          if (first + f >= plan.filters) break;
          add_product(sums[f], load<width>(bank + ((first + f) * plan.offset_count + o) * stride + c), x);
        }
      }
#pragma unroll
      for (int f = 0; f < filters_at_once; ++f) {
        if (first + f < plan.filters) put(first + f, sums[f]);
      }
    }
    return;
  }
  for (int o = 0; o < plan.offset_count; ++o) {
    const int near = neighbor(o);
    put(o, near < 0 ? Values<width>{} : load<width>(states.of(near) + c));
  }
}

// The gradient that channels c.. of a cell receive from the percepts of the cells that read it.
template <int width, class Percepts, class W>
__device__ inline Values<width> perceive_adjoint(const Plan& plan, const Tables& tables,
                                                 const Percepts& percept_gradients, const W* bank, int stride, int cell,
                                                 int c) {
  const int cells = static_cast<int>(plan.cells);
  Values<width> sum{};
  for (int o = 0; o < plan.offset_count; ++o) {
    const int32_t* start = tables.reader_start + o * (cells + 1) + cell;
    for (int i = start[0]; i < start[1]; ++i) {
      const auto* from = percept_gradients.of(tables.reader[i]) + c;
      if (plan.perception == Perception::gather) {
        const Values<width> g = load<width>(from + o * stride);
#pragma unroll
        for (int j = 0; j < width; ++j) sum[j] += g[j];
        continue;
      }
      for (int f = 0; f < plan.filters; ++f) {
        add_product(sum, load<width>(bank + (f * plan.offset_count + o) * stride + c), load<width>(from + f * stride));
      }
    }
  }
  return sum;
}

// Adds the filters' gradient of some cells to channels c.. of offset o, for every filter.
template <int width, class States, class G>
__device__ inline void add_bank_gradient(const Plan& plan, const Tables& tables, const States& states,
                                         const Rows<G>& percept_gradients, int first_cell, int cells, int stride, int o,
                                         int c, float* bank_gradient) {
  const int32_t* neighbor = tables.neighbor + o * static_cast<int>(plan.cells) + first_cell;
  for (int first = 0; first < plan.filters; first += filters_at_once) {
    Values<width> sums[filters_at_once]{};
    for (int cell = 0; cell < cells; ++cell) {
      const int near = neighbor[cell];
      if (near < 0) continue;
      const Values<width> x = load<width>(states.of(near) + c);
#pragma unroll
      for (int f = 0; f < filters_at_once; ++f) {
        if (first + f >= plan.filters) break;
        add_product(sums[f], load<width>(percept_gradients.of(cell) + (first + f) * stride + c), x);
      }
    }
#pragma unroll
    for (int f = 0; f < filters_at_once; ++f) {
      if (first + f >= plan.filters) break;
      float* to = bank_gradient + ((first + f) * plan.offset_count + o) * stride + c;
#pragma unroll
      for (int j = 0; j < width; ++j) to[j] += sums[f][j];
    }
  }
}

}  // namespace
}  // namespace cube
