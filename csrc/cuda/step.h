// One step of a sample whose state lies in the shared memory of a group of blocks.
#pragma once
#include "group.h"
#include "kernels.h"
#include "masks.h"
#include "perceive.h"
#include "product.h"

#include "../cell.h"  // after the numbers it computes with

namespace cube {

namespace {

// Which products a kernel takes: those of a step, whose operands are stored as T, and those of its backward pass.
struct Ieee {
  using Step = FmaProduct;
  using Backward = FmaProduct;
};
struct Tf32 {
  using Step = Tf32Product;
  using Backward = Tf32Product;
};
template <class T>
struct Half {
  using Step = PairProduct<T>;
  using Backward = Tf32Product;  // gradients keep float32's range
};

template <class T>
struct Weights {
  const T *bank, *hidden_weight, *hidden_bias, *head_weight, *head_bias, *rate;
};

// A block's view of its memory and of its part of the cells, which it counts from 0. What lies in the tables and in the
// caller's arrays is found by a cell's number in the sample, `first` more.
template <class T, class Group>
struct Block {
  __device__ explicit Block(const Common& call)
      : call(call),
        plan(call.plan),
        tables(call.tables),
        widths(call.widths),
        layout(call.layout),
        first(Group::first_cell(layout)),
        cells(Group::cell_count(layout, static_cast<int>(plan.cells))),
        packets(widths.stride / packet),
        state(at<T>(layout.state)),
        next(at<T>(layout.next)),
        living(at<uint8_t>(layout.living)),
        flags(at<uint8_t>(layout.flags)),
        inputs(at<T>(layout.inputs)),
        activated(at<T>(layout.activated)),
        heads(at<float>(layout.heads)) {
    const T* from = layout.weights.shared ? at<T>(layout.weights) : static_cast<const T*>(call.packed);
    const WeightLayout& where = call.weights;
    weights = {from + where.bank,        from + where.hidden_weight, from + where.hidden_bias,
               from + where.head_weight, from + where.head_bias,     from + where.rate};
  }

  template <class N>
  __device__ N* at(const Place& place) const {
    unsigned char* base = place.shared ? shared_memory() : call.slices + blockIdx.x * layout.slice_bytes;
    return reinterpret_cast<N*>(base + place.offset);
  }

  // Of any cell of the sample.
  __device__ auto states() const { return Group::rows(layout, state, true, widths.stride); }
  __device__ auto next_states() const { return Group::rows(layout, next, layout.next.shared, widths.stride); }

  const Common& call;
  const Plan& plan;
  const Tables& tables;
  const Widths& widths;
  const Layout& layout;
  int first, cells;
  int packets;  // of a cell
  Weights<T> weights;
  T* state;
  T* next;
  uint8_t* living;  // of the cells, in this step
  uint8_t* flags;   // of the tile's cells
  T* inputs;
  T* activated;
  float* heads;
};

// What the caller's arrays hold for one sample.
template <class T, class Group>
struct Sample {
  const Block<T, Group>& block;
  int64_t index;

  // Where the block's cells of the sample begin in slice `slice` of [slices, batch, cells, channels].
  __device__ int64_t start(int64_t slice) const {
    return ((slice * block.call.schedule.batch + index) * block.plan.cells + block.first) * block.plan.channels;
  }
  // Calls move(place in the caller's sample, place in the block's) for every packet, or for every number where channels
  // make no whole packets.
  template <class Move>
  __device__ void for_each_place(Move&& move) const {
    const int channels = block.plan.channels, stride = block.widths.stride;
    if (channels == stride) {
      for_each(block.cells * block.packets,
               [&](int i) { move(std::integral_constant<int, packet>{}, i * packet, i * packet); });
    } else {
      for_each(block.cells * channels,
               [&](int i) { move(std::integral_constant<int, 1>{}, i, i / channels * stride + i % channels); });
    }
  }
  // Padding becomes zero.
  template <class N>
  __device__ void read(const void* from, int64_t slice, N* to) const {
    const T* sample = static_cast<const T*>(from) + start(slice);
    for_each_place([&](auto width, int i, int j) { store<width.value>(to + j, load<width.value>(sample + i)); });
    const int channels = block.plan.channels, padding = block.widths.stride - channels;
    for_each(block.cells * padding,
             [&](int i) { to[i / padding * block.widths.stride + channels + i % padding] = narrowed<N>(0); });
  }
  template <class N>
  __device__ void write(const N* from, void* to, int64_t slice) const {
    T* sample = static_cast<T*>(to) + start(slice);
    for_each_place([&](auto width, int i, int j) { store<width.value>(sample + i, load<width.value>(from + j)); });
  }
  __device__ void add(const void* from, int64_t slice, float* to) const {
    const T* sample = static_cast<const T*>(from) + start(slice);
    for_each_place([&](auto width, int i, int j) {
      Values<width.value> sum = load<width.value>(to + j);
      const auto more = load<width.value>(sample + i);
#pragma unroll
      for (int k = 0; k < width.value; ++k) sum[k] += more[k];
      store<width.value>(to + j, sum);
    });
  }
  __device__ const T* drive() const {
    const int64_t sample = block.call.schedule.shared_drive ? 0 : index;
    return static_cast<const T*>(block.call.drive) + (sample * block.plan.cells + block.first) * block.plan.drive;
  }
  __device__ Moment moment(int64_t step) const {
    const uint8_t* mask = block.call.write_mask;
    const int64_t first = block.call.schedule.shared_write_mask ? 0 : index * block.plan.cells;
    const Schedule& schedule = block.call.schedule;
    return {schedule.seed, static_cast<uint32_t>(schedule.first_sample + index),
            static_cast<uint32_t>(schedule.first_step + step), step, mask == nullptr ? nullptr : mask + first};
  }
};

template <class T, class Group>
__device__ inline void stage_weights(const Block<T, Group>& block) {
  if (!block.layout.weights.shared) return;
  constexpr int width = 16 / sizeof(T);
  const T* from = static_cast<const T*>(block.call.packed);
  T* to = block.template at<T>(block.layout.weights);
  for_each(block.call.weights.size / width,
           [&](int i) { store<width>(to + i * width, load<width>(from + i * width)); });
}

__device__ inline ValueAndSlope<float> activate(Activation kind, float h) {
  switch (kind) {
    case Activation::relu: return activate<Activation::relu>(h);
    case Activation::gelu: return activate<Activation::gelu>(h);
    case Activation::silu: return activate<Activation::silu>(h);
    case Activation::tanh: return activate<Activation::tanh>(h);
  }
  __builtin_unreachable();
}

template <auto v>
using Constant = std::integral_constant<decltype(v), v>;

// Returns body(Constant<update>, Constant<squash>) for the plan's pair.
template <class Body>
__device__ inline auto with_update(const Plan& plan, Body&& body) {
  const auto with_squash = [&](auto update) {
    switch (plan.squash) {
      case Squash::identity: return body(update, Constant<Squash::identity>{});
      case Squash::tanh: return body(update, Constant<Squash::tanh>{});
    }
    __builtin_unreachable();
  };
  switch (plan.update) {
    case Update::residual: return with_squash(Constant<Update::residual>{});
    case Update::replace: return with_squash(Constant<Update::replace>{});
    case Update::gated: return with_squash(Constant<Update::gated>{});
    case Update::leaky: return with_squash(Constant<Update::leaky>{});
  }
  __builtin_unreachable();
}

// The step size or a leaky cell's rate, times the fire mask's scale.
template <class T, class Group>
__device__ inline float pace(const Block<T, Group>& block, int c) {
  const Plan& plan = block.plan;
  const float each = block.call.has_rate ? widened(block.weights.rate[c]) : static_cast<float>(plan.step_size);
  return each * static_cast<float>(plan.fire_scale);
}

// Cells of a tile: the block's first .. first + count.
struct Tile {
  int first, count;
};

enum Flag : uint8_t { may_be_written = 1, has_fired = 2 };

template <class T, class Group>
__device__ inline void mark_cells(const Block<T, Group>& block, const Moment& moment, const Tile& tile) {
  for_each(tile.count, [&](int row) {
    const int cell = block.first + tile.first + row;
    block.flags[row] = (writable(block.tables, moment, cell) ? may_be_written : 0) |
                       (fires(block.plan, block.tables, moment, cell) ? has_fired : 0);
  });
}

// Percepts of the tile's cells in rows of `to`; zeros past them, and where the step computes none: beside a cut face
// they might overflow, and make NaN of a gradient of zero.
template <class T, class Group, class N>
__device__ inline void perceive_tile(const Block<T, Group>& block, const Moment& moment, const Tile& tile, N* to,
                                     int to_stride) {
  const int stride = block.widths.stride, vectors = percept_count(block.plan);
  for_each(block.layout.tile_rows * block.packets, [&](int i) {
    const int row = i / block.packets, c = i % block.packets * packet;
    N* at = to + row * to_stride + c;
    if (row < tile.count && computes(block.tables, moment, block.first + tile.first + row)) {
      perceive<packet>(block.plan, block.tables, block.states(), block.weights.bank, stride,
                       block.first + tile.first + row, c,
                       [&](int vector, const Values<packet>& values) { store<packet>(at + vector * stride, values); });
    } else {
      for (int vector = 0; vector < vectors; ++vector) store<packet>(at + vector * stride, Values<packet>{});
    }
  });
}

// The input of the hidden layer, [own state; percepts; drive].
template <class T, class Group>
__device__ inline void fill_inputs(const Block<T, Group>& block, const Moment& moment, const T* drive,
                                   const Tile& tile) {
  const Widths& widths = block.widths;
  const int stride = block.layout.input_stride, rows = block.layout.tile_rows;
  if (widths.own > 0) {
    for_each(rows * block.packets, [&](int i) {
      const int row = i / block.packets, c = i % block.packets * packet;
      const T* from = block.state + (tile.first + row) * widths.stride + c;
      store<packet>(block.inputs + row * stride + c, row < tile.count ? load<packet>(from) : Values<packet>{});
    });
  }
  perceive_tile(block, moment, tile, block.inputs + widths.own, stride);
  const int at = widths.own + widths.percepts, rest = widths.inputs - at;
  for_each(rows * rest, [&](int i) {
    const int row = i / rest, u = i % rest;
    const bool is_drive = row < tile.count && u < block.plan.drive;
    block.inputs[row * stride + at + u] = is_drive ? drive[(tile.first + row) * block.plan.drive + u] : narrowed<T>(0);
  });
}

// The heads of a tile's cells; the activation's slopes too, unless that is null. Begins and ends between barriers.
template <class Products, class T, class Group>
__device__ inline void evaluate_heads(const Block<T, Group>& block, const Moment& moment, const T* drive,
                                      const Tile& tile, float* slopes) {
  const Widths& widths = block.widths;
  const Layout& layout = block.layout;
  const Weights<T>& weights = block.weights;
  if (widths.hidden == 0) {
    perceive_tile(block, moment, tile, block.heads, layout.head_stride);
    __syncthreads();
    return;
  }
  fill_inputs(block, moment, drive, tile);
  __syncthreads();
  using Product = typename Products::Step;
  Product::run(RowMajor<T>{block.inputs, layout.input_stride},
               ColumnMajor<T>(weights.hidden_weight, block.call.weights.hidden_stride), layout.tile_rows, widths.hidden,
               widths.inputs, [&](int row, int column, const Pair& sums) {
                 Pair values, slope;
#pragma unroll
                 for (int i = 0; i < 2; ++i) {
                   const float h = sums[i] + widened(weights.hidden_bias[column + i]);
                   const ValueAndSlope<float> a = activate(block.plan.activation, h);
                   values[i] = a.value;
                   slope[i] = a.slope;
                 }
                 store<2>(block.activated + row * layout.activated_stride + column, values);
                 if (slopes != nullptr) store<2>(slopes + row * layout.slope_stride + column, slope);
               });
  __syncthreads();
  Product::run(RowMajor<T>{block.activated, layout.activated_stride},
               ColumnMajor<T>(weights.head_weight, block.call.weights.head_stride), layout.tile_rows, widths.heads,
               widths.hidden, [&](int row, int column, Pair sums) {
#pragma unroll
                 for (int i = 0; i < 2; ++i) sums[i] += widened(weights.head_bias[column + i]);
                 store<2>(block.heads + row * layout.head_stride + column, sums);
               });
  __syncthreads();
}

// The new state of channel c of the block's cell that was x and proposes y.
template <class T, class Group>
__device__ inline float accepted(const Block<T, Group>& block, float x, float y, int cell, int c) {
  const Plan& plan = block.plan;
  if (plan.clamps) {
    const float low = static_cast<float>(plan.low), high = static_cast<float>(plan.high);
    y = y < low ? low : y;  // so a NaN stays a NaN
    y = y > high ? high : y;
  }
  if (block.tables.retention != nullptr) y *= block.tables.retention[block.first + cell];
  return block.tables.may_change[c] ? y : x;
}

// The new states of a tile's cells from their heads, up to death.
template <class T, class Group>
__device__ inline void update_tile(const Block<T, Group>& block, const Tile& tile) {
  const int stride = block.widths.stride;
  for_each(tile.count * stride, [&](int i) {
    const int row = i / stride, c = i % stride, cell = tile.first + row;
    const float* head = block.heads + row * block.layout.head_stride + c;
    const float x = widened(block.state[cell * stride + c]);
    float y = x;
    if (block.flags[row] & has_fired) {
      const float delta = *head, gate = block.plan.update == Update::gated ? head[stride] : 0;
      y = with_update(block.plan, [&](auto update, auto squash) {
        return updated<update.value, squash.value>(x, delta, gate, pace(block, c));
      });
    }
    const bool may_change = block.flags[row] & may_be_written;
    block.next[cell * stride + c] = narrowed<T>(may_change ? accepted(block, x, y, cell, c) : x);
  });
}

// Kills the cells of the new state that do not live. Begins and ends between barriers of the group.
template <class T, class Group>
__device__ inline void settle(const Block<T, Group>& block, const Moment& moment) {
  const Plan& plan = block.plan;
  const int stride = block.widths.stride;
  if (plan.alive_after) {
    for_each(block.cells, [&](int cell) {
      const bool lived = !plan.alive_before || block.living[cell];
      block.living[cell] = lived && lives(plan, block.tables, block.next_states(), block.first + cell);
    });
    Group::synchronize();
  }
  for_each(block.cells * stride, [&](int i) {
    const int cell = i / stride;
    if (block.living[cell] || !writable(block.tables, moment, block.first + cell) ||
        !block.tables.may_change[i % stride])
      return;
    block.next[i] = narrowed<T>(static_cast<float>(plan.dead_value));
  });
  Group::synchronize();
}

// Calls visit(tile) for all of the block's cells.
template <class T, class Group, class Visit>
__device__ inline void for_each_tile(const Block<T, Group>& block, Visit&& visit) {
  const int rows = block.layout.tile_rows;
  for (int first = 0; first < block.cells; first += rows) {
    visit(Tile{first, block.cells - first < rows ? block.cells - first : rows});
  }
}

// block.next from block.state; block.living, too. Begins and ends between barriers of the group.
template <class Products, class T, class Group>
__device__ inline void advance(const Block<T, Group>& block, const Sample<T, Group>& sample, int64_t step) {
  const Plan& plan = block.plan;
  const Moment moment = sample.moment(step);
  const bool can_die = plan.alive_channel >= 0;
  if (can_die && plan.alive_before) {
    for_each(block.cells,
             [&](int cell) { block.living[cell] = lives(plan, block.tables, block.states(), block.first + cell); });
  }
  for_each_tile(block, [&](const Tile& tile) {
    mark_cells(block, moment, tile);
    evaluate_heads<Products>(block, moment, sample.drive(), tile, static_cast<float*>(nullptr));
    update_tile(block, tile);
    __syncthreads();
  });
  Group::join();
  if (can_die) settle(block, moment);
}

}  // namespace
}  // namespace cube
