// The backward pass of one step of a sample.
#pragma once
#include "step.h"

namespace cube {
namespace {

// A block's gradients, in float32.
struct Gradients {
  float* next;      // [cells, stride], of the new state
  float* state;     // [cells, stride], of the old one
  float* percepts;  // [cells, percepts]
  float* drive;     // [cells, drive], added to
  float* weights;   // WeightLayout, added to
  float* slopes;    // [tile_rows, hidden]: of the activation, then the gradient of the hidden layer
};

// Of the proposed y in `accepted`, from that of the new state; that of x is g where channels never change.
template <class T, class Group>
__device__ inline float accepted_gradient(const Block<T, Group>& block, float y, float g, int cell, int c) {
  const Plan& plan = block.plan;
  if (plan.clamps && (y < static_cast<float>(plan.low) || y > static_cast<float>(plan.high))) g = 0;
  if (block.tables.retention != nullptr) g *= block.tables.retention[block.first + cell];
  return block.tables.may_change[c] ? g : 0;
}

// From the heads of a tile's cells to their gradients, in place; the state's gradient without what goes through the
// heads. The gradients of a leaky cell's rate follow the heads. Rows past the tile's cells become zero.
template <class T, class Group>
__device__ inline void update_gradient(const Block<T, Group>& block, const Tile& tile, const Gradients& gradients) {
  const Plan& plan = block.plan;
  const int stride = block.widths.stride;
  const bool gated = plan.update == Update::gated;
  for_each(block.layout.tile_rows * stride, [&](int i) {
    const int row = i / stride, c = i % stride, cell = tile.first + row;
    float* head = block.heads + row * block.layout.head_stride + c;
    UpdateGradient<float> d{};
    if (row < tile.count) {
      const int place = cell * stride + c;
      const uint8_t flags = block.flags[row];
      const float x = widened(block.state[place]), g = gradients.next[place];
      const bool dead = plan.alive_channel >= 0 && !block.living[cell];
      float state = g;
      if (flags & may_be_written) {
        const auto through = [&](float y) { return dead ? 0.0f : accepted_gradient(block, y, g, cell, c); };
        if (flags & has_fired) {
          const float delta = *head, gate = gated ? head[stride] : 0, p = pace(block, c);
          d = with_update(plan, [&](auto update, auto squash) {
            const float y = updated<update.value, squash.value>(x, delta, gate, p);
            return updated_gradient<update.value, squash.value>(x, delta, gate, p, through(y));
          });
          state = d.state;
        } else {
          state = through(x);
        }
        if (!block.tables.may_change[c]) state += g;
      }
      gradients.state[place] = state;
    }
    *head = d.delta;
    if (gated) head[stride] = d.gate;
    if (plan.update == Update::leaky) head[block.widths.heads] = d.pace;
  });
}

template <class T, class Group>
__device__ inline void add_column_sums(const Block<T, Group>& block, const float* rows, int stride, int columns,
                                       float* sums) {
  for_each(columns, [&](int column) {
    float sum = 0;
    for (int row = 0; row < block.layout.tile_rows; ++row) sum += rows[row * stride + column];
    sums[column] += sum;
  });
}

// Adds to the matrix whose rows begin at `to`.
struct AddTo {
  float* to;
  int stride;
  __device__ void operator()(int row, int column, Pair sums) const {
    float* at = to + row * stride + column;
    const Pair before = load<2>(at);
#pragma unroll
    for (int i = 0; i < 2; ++i) sums[i] += before[i];
    store<2>(at, sums);
  }
};

// From the gradients of a tile's heads to those of the layers' weights and inputs. Begins and ends between barriers.
template <class Products, class T, class Group>
__device__ inline void layers_gradient(const Block<T, Group>& block, const WeightLayout& at, const Tile& tile,
                                       const Gradients& gradients) {
  using Product = typename Products::Backward;
  const Widths& widths = block.widths;
  const Layout& layout = block.layout;
  const int rows = layout.tile_rows, own = widths.own, percepts = widths.percepts;
  const RowMajor<T> activated{block.activated, layout.activated_stride}, inputs{block.inputs, layout.input_stride};
  const RowMajor<T> head_weight{block.weights.head_weight, block.call.weights.head_stride};
  const RowMajor<T> hidden_weight{block.weights.hidden_weight, block.call.weights.hidden_stride};
  const RowMajor<float> heads{block.heads, layout.head_stride}, hidden{gradients.slopes, layout.slope_stride};

  Product::run(ColumnMajor<float>(heads.data, heads.stride), activated, widths.heads, widths.hidden, rows,
               AddTo{gradients.weights + at.head_weight, at.head_stride});
  add_column_sums(block, heads.data, heads.stride, widths.heads, gradients.weights + at.head_bias);
  Product::run(heads, head_weight, rows, widths.hidden, widths.heads, [&](int row, int column, Pair sums) {
    float* slope = gradients.slopes + row * hidden.stride + column;
#pragma unroll
    for (int i = 0; i < 2; ++i) sums[i] *= slope[i];
    store<2>(slope, sums);
  });
  __syncthreads();
  Product::run(ColumnMajor<float>(hidden.data, hidden.stride), inputs, widths.hidden, widths.inputs, rows,
               AddTo{gradients.weights + at.hidden_weight, at.hidden_stride});
  add_column_sums(block, hidden.data, hidden.stride, widths.hidden, gradients.weights + at.hidden_bias);
  Product::run(hidden, hidden_weight, rows, widths.inputs, widths.hidden, [&](int row, int column, const Pair& sums) {
    if (row >= tile.count) return;
    const int cell = tile.first + row;
    if (column < own) {
      AddTo{gradients.state, widths.stride}(cell, column, sums);
    } else if (column < own + percepts) {
      store<2>(gradients.percepts + cell * percepts + column - own, sums);
    } else if (column < own + percepts + widths.drive) {
      AddTo{gradients.drive, widths.drive}(cell, column - own - percepts, sums);
    }
  });
  __syncthreads();
}

// gradients.state from gradients.next for the step from block.state, in which block.living were alive. Begins and ends
// between barriers of the group.
template <class Products, class T, class Group>
__device__ inline void step_gradient(const Block<T, Group>& block, const WeightLayout& at,
                                     const Sample<T, Group>& sample, int64_t step, const Gradients& gradients) {
  const Moment moment = sample.moment(step);
  const Plan& plan = block.plan;
  const Widths& widths = block.widths;
  for_each_tile(block, [&](const Tile& tile) {
    mark_cells(block, moment, tile);
    evaluate_heads<Products>(block, moment, sample.drive(), tile, gradients.slopes);
    update_gradient(block, tile, gradients);
    __syncthreads();
    if (plan.update == Update::leaky) {
      add_column_sums(block, block.heads + widths.heads, block.layout.head_stride, widths.stride,
                      gradients.weights + at.rate);
    }
    if (widths.hidden > 0) {
      layers_gradient<Products>(block, at, tile, gradients);
    } else {
      for_each(tile.count * widths.percepts, [&](int i) {
        const int row = i / widths.percepts, p = i % widths.percepts;
        gradients.percepts[(tile.first + row) * widths.percepts + p] = block.heads[row * block.layout.head_stride + p];
      });
      __syncthreads();
    }
  });
  Group::join();
  const int stride = widths.stride;
  const auto percepts =
      Group::rows(block.layout, gradients.percepts, block.layout.percept_gradient.shared, widths.percepts);
  for_each(block.cells * block.packets, [&](int i) {
    const int cell = i / block.packets, c = i % block.packets * packet;
    float* to = gradients.state + cell * stride + c;
    Values<packet> sum = load<packet>(to);
    const Values<packet> more =
        perceive_adjoint<packet>(plan, block.tables, percepts, block.weights.bank, stride, block.first + cell, c);
#pragma unroll
    for (int j = 0; j < packet; ++j) sum[j] += more[j];
    store<packet>(to, sum);
  });
  for_each(plan.offset_count * block.packets, [&](int i) {
    add_bank_gradient<packet>(plan, block.tables, block.states(), Rows<float>{gradients.percepts, widths.percepts},
                              block.first, block.cells, stride, i / block.packets, i % block.packets * packet,
                              gradients.weights + at.bank);
  });
  Group::synchronize();
}

}  // namespace
}  // namespace cube
