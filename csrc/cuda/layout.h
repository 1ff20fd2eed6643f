// What a block of threads is, how many share a sample, and where each keeps what it works on: decided on the host
// before a launch.
#pragma once
#include <cstdint>

#include "../plan.h"

namespace cube {

constexpr int block_threads = 256;
constexpr int warp_threads = 32;
constexpr int block_warps = block_threads / warp_threads;
// Samples under way at once. A backward pass's scratch grows with them, and the order of its sums depends on them.
constexpr int most_samples = 512;
constexpr int most_cluster_blocks = 8;  // that every GPU with clusters has

constexpr int packet = 4;     // channels are padded with zeros to whole packets of numbers
constexpr int fragment = 16;  // and the sides of matrices to whole fragments

constexpr int64_t round_up(int64_t number, int64_t unit) { return (number + unit - 1) / unit * unit; }

// Padded widths of a rule's vectors. A cell's input is [own state; percepts; drive].
struct Widths {
  explicit Widths(const Plan& plan);
  int stride;  // of a cell's channels
  int own, percepts, drive;
  int inputs, hidden, heads;  // hidden 0: there are no layers
};

// Where each weight begins, in numbers. The rows of matrices are 16 bytes longer than their content, so that the
// lanes of a warp, which read a column of them, meet in no bank of shared memory.
struct WeightLayout {
  WeightLayout(const Plan& plan, const Widths& widths, int number_bytes);
  int bank;           // [filters, offsets, stride]
  int hidden_weight;  // [hidden, inputs] in rows of hidden_stride
  int hidden_bias;    // [hidden]
  int head_weight;    // [heads, hidden] in rows of head_stride
  int head_bias;      // [heads]
  int rate;           // [stride]
  int hidden_stride, head_stride;
  int size;
};

// A piece of a block's memory, in bytes from the beginning of its shared memory or of its slice of the scratch.
struct Place {
  bool shared;
  int64_t offset;
};

// All of a block's memory. What it does not use has no place.
struct Layout {
  int blocks;      // that share a sample: a cluster, if there are several
  int cells;       // of a sample for each of them, one after another; the last ones may have fewer
  int cells_bits;  // of several: `cells` is that power of two

  int tile_rows;                                                  // cells that go through the layers together
  int input_stride, activated_stride, slope_stride, head_stride;  // of the tile's rows, in numbers

  Place state;      // [cells, stride] as stored
  Place next;       // likewise; in the scratch, it is copied back after every step
  Place living;     // [cells]
  Place flags;      // [tile_rows]
  Place movement;   // of each warp
  Place inputs;     // [tile_rows, inputs] as stored
  Place activated;  // [tile_rows, hidden] as stored
  Place heads;      // [tile_rows, heads], and the rate's gradients after them
  Place weights;    // shared: a copy for this block; otherwise it reads the packed ones

  // Of the backward pass alone; gradients are float32.
  Place slopes;            // [tile_rows, hidden], of the activation; then the hidden layer's gradient
  Place gradient;          // [cells, stride], of the state
  Place other_gradient;    // likewise, of the step before
  Place percept_gradient;  // [cells, percepts]
  Place drive_gradient;    // [cells, drive]
  Place weight_gradient;   // WeightLayout::size
  Place segment;           // states from a checkpoint to the next, [segment, cells, stride] as stored
  Place segment_lives;     // [segment, cells]
  Place result;            // in the scratch: what the block hands on, the weights' gradients

  int64_t shared_bytes;
  int64_t slice_bytes;  // of the scratch, for each block
};

// What a device has.
struct Limits {
  int64_t shared_bytes;  // of a block
  int blocks;            // of a cluster; 1: there are no clusters
};

// The least shared memory, in bytes, that each of so many blocks needs for either direction of a call.
int64_t least_shared_bytes(const Plan& plan, Storage storage, int blocks);

// The layout that makes the best of the device; the most blocks must have `least_shared_bytes`. One block takes the
// sample if it can; otherwise as few as keep all states and gradients of the cells in shared memory, or the most.
Layout forward_layout(const Plan& plan, Storage storage, const Limits& limits);
Layout backward_layout(const Plan& plan, Storage storage, int64_t segment, const Limits& limits);

}  // namespace cube
